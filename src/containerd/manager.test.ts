import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Code } from "@connectrpc/connect";
import { WriteAction, type WriteContentRequest } from "../gen/containerd/services/content/v1_pb.ts";
import type { Envelope } from "../gen/containerd/types_pb.ts";
import { digestOf } from "../oci/index.ts";
import { type Scratch, scratch, until } from "./harness.ts";
import { connectManager, createManager, inMemoryClients, type Manager, type ManagerClients, serve } from "./index.ts";

let place: Scratch;
let manager: Manager;
let c: ManagerClients;
const open = (path: string) => createManager({ root: join(path, "root"), state: join(path, "state") });
const snapshotter = "overlayfs";
const spec = { typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", value: Buffer.from("{}") };
const container = (id: string, more: object = {}) => ({ id, runtime: { name: "io.containerd.jubako.v1" }, spec, ...more });

beforeAll(async () => {
  place = scratch("memory");
  manager = await open(place.path);
  c = inMemoryClients(manager, "test");
});
afterAll(async () => {
  await manager.close();
  place[Symbol.dispose]();
});

async function* requests(...list: Partial<WriteContentRequest>[]) {
  for (const each of list) yield each as never;
}
const write = async (clients: ManagerClients, ...list: Partial<WriteContentRequest>[]) => {
  const answers = [];
  for await (const answer of clients.content.write(requests(...list))) answers.push(answer);
  return answers;
};
const put = (clients: ManagerClients, data: Buffer, labels: Record<string, string> = {}) =>
  write(clients, {
    action: WriteAction.COMMIT,
    ref: `put-${digestOf(data)}`,
    total: BigInt(data.length),
    expected: digestOf(data),
    data,
    labels,
  });
const read = async (clients: ManagerClients, digest: string) => {
  const parts = [];
  for await (const { data } of clients.content.read({ digest })) parts.push(data);
  return Buffer.concat(parts);
};
const kind = (promise: Promise<unknown>) =>
  promise.then(
    () => "no error",
    (error: Error) => error.name,
  );
// not expect().rejects, which waits in an event loop of its own
const message = (promise: Promise<unknown>) =>
  promise.then(
    () => "no error",
    (error: Error) => error.message,
  );
const backdate = (path: string, table: string) => {
  const { Database } = require("bun:sqlite") as typeof import("bun:sqlite");
  const db = new Database(join(path, "root/meta.db"));
  db.run(`update ${table} set created = created - 60000000`);
  db.close();
};

test("a call without a namespace is refused as containerd refuses it", async () => {
  const nobody = inMemoryClients(manager, "");
  expect(await kind(nobody.containers.list({}))).toBe("FailedPrecondition");
  expect((await nobody.version.version({})).version).toContain("jubako");
});

test("containers: create, get, update by field mask, filter, delete", async () => {
  await c.containers.create({ container: container("a", { labels: { app: "x", "io.x/y": "1" }, image: "img" }) });
  await c.containers.create({ container: container("b") });
  expect(await kind(c.containers.create({ container: container("a") }))).toBe("AlreadyExists");
  expect(await kind(c.containers.create({ container: container("../a") }))).toBe("InvalidArgument");
  expect(await kind(c.containers.create({ container: { id: "c", spec } }))).toBe("InvalidArgument");
  await c.containers.update({ container: container("a", { labels: { app: "y" } }), updateMask: { paths: ["labels.app"] } });
  const { container: a } = await c.containers.get({ id: "a" });
  expect(a?.labels).toEqual({ app: "y", "io.x/y": "1" });
  expect(await kind(c.containers.update({ container: container("a"), updateMask: { paths: ["created_at"] } }))).toBe("InvalidArgument");
  const ids = async (...filters: string[]) => (await c.containers.list({ filters })).containers.map(({ id }) => id);
  expect(await ids()).toEqual(["a", "b"]);
  expect(await ids("labels.app==y")).toEqual(["a"]);
  expect(await ids('labels."io.x/y"==1,image==img')).toEqual(["a"]);
  expect(await ids("id==b", "image~=^im")).toEqual(["a", "b"]);
  await c.containers.delete({ id: "a" });
  await c.containers.delete({ id: "b" });
  expect(await kind(c.containers.delete({ id: "a" }))).toBe("NotFound");
  expect(await message(c.containers.get({ id: "a" }))).toContain('container "a" in namespace "test"');
});

test("what a caller gets is its own: changing it changes nothing", async () => {
  const labels = { a: "1" };
  await c.containers.create({ container: container("own", { labels }) });
  labels.a = "2";
  const { container: first } = await c.containers.get({ id: "own" });
  first!.labels.a = "3";
  expect((await c.containers.get({ id: "own" })).container?.labels).toEqual({ a: "1" });
  await c.containers.delete({ id: "own" });
});

test("content: written in pieces, resumed, verified, read, labelled, deleted", async () => {
  const data = Buffer.from("hello content".repeat(1000));
  const digest = digestOf(data);
  const half = data.length >> 1;
  await write(c, { action: WriteAction.WRITE, ref: "r", total: BigInt(data.length), expected: digest, data: data.subarray(0, half) });
  expect((await c.content.status({ ref: "r" })).status).toMatchObject({ offset: BigInt(half), total: BigInt(data.length) });
  expect((await c.content.listStatuses({})).statuses.map(({ ref }) => ref)).toEqual(["r"]);
  const answers = await write(
    c,
    { action: WriteAction.STAT, ref: "r" },
    { action: WriteAction.WRITE, offset: BigInt(half), data: data.subarray(half) },
    { action: WriteAction.COMMIT, offset: BigInt(data.length), total: BigInt(data.length), expected: digest, labels: { l: "1" } },
  );
  expect(answers[0]?.offset).toBe(BigInt(half));
  expect(answers.at(-1)?.digest).toBe(digest);
  expect(await read(c, digest)).toEqual(data);
  expect((await c.content.info({ digest })).info).toMatchObject({ size: BigInt(data.length), labels: { l: "1" } });
  await c.content.update({ info: { digest, labels: { m: "2" } }, updateMask: { paths: ["labels.m"] } });
  expect((await c.content.info({ digest })).info?.labels).toEqual({ l: "1", m: "2" });
  expect(await kind(put(c, data))).toBe("AlreadyExists");

  const other = inMemoryClients(manager, "other");
  expect(await kind(other.content.info({ digest }))).toBe("NotFound");
  await put(other, data);
  await c.content.delete({ digest });
  expect(await read(other, digest)).toEqual(data);
  await other.content.delete({ digest });
  expect(existsSync(join(place.path, "root/content/blobs/sha256", digest.slice(7)))).toBe(false);
});

test("content with a wrong digest or size is refused and leaves nothing", async () => {
  const data = Buffer.from("x");
  const wrong = digestOf("y");
  const bad = write(c, { action: WriteAction.COMMIT, ref: "bad", expected: wrong, data });
  expect(await message(bad)).toContain(`unexpected commit digest ${digestOf(data)}, expected ${wrong}`);
  expect(await kind(bad)).toBe("FailedPrecondition");
  expect(await kind(write(c, { action: WriteAction.COMMIT, ref: "bad", total: 5n, data }))).toBe("FailedPrecondition");
  expect((await c.content.listStatuses({})).statuses).toEqual([]);
  expect(readdirSync(join(place.path, "root/content/ingest"))).toEqual([]);
  const gap = write(c, { action: WriteAction.WRITE, ref: "gap", offset: 7n, data }).catch((error) => error);
  expect((await gap).code).toBe(Code.OutOfRange);
  await c.content.abort({ ref: "gap" });
  expect(await kind(c.content.info({ digest: "sha256:../../etc" }))).toBe("InvalidArgument");
});

test("snapshots: active, committed, view; mounts as overlayfs takes them", async () => {
  const prepare = (key: string, parent: string) => c.snapshots.prepare({ snapshotter, key, parent });
  const one = await prepare("one", "");
  expect(one.mounts[0]).toMatchObject({ type: "bind", options: ["rw", "rbind"] });
  writeFileSync(join(one.mounts[0]!.source, "file"), "1");
  await c.snapshots.commit({ snapshotter, key: "one", name: "base" });
  const two = await prepare("two", "base");
  expect(two.mounts[0]).toMatchObject({ type: "overlay" });
  expect(two.mounts[0]!.options.filter((option) => !option.startsWith("index=")).map((option) => option.split("=")[0])).toEqual([
    "workdir",
    "upperdir",
    "lowerdir",
  ]);
  expect(two.mounts[0]!.options.at(-1)).toBe(`lowerdir=${one.mounts[0]!.source}`);
  expect(await kind(prepare("two", "base"))).toBe("AlreadyExists");
  expect(await kind(prepare("x", "nothing"))).toBe("NotFound");
  expect(await kind(prepare("x", "two"))).toBe("InvalidArgument");
  const view = await c.snapshots.view({ snapshotter, key: "view", parent: "base" });
  expect(view.mounts[0]).toMatchObject({ type: "bind", source: one.mounts[0]!.source, options: ["ro", "rbind"] });
  expect((await c.snapshots.mounts({ snapshotter, key: "two" })).mounts).toEqual(two.mounts);
  expect((await c.snapshots.usage({ snapshotter, key: "base" })).inodes).toBe(2n);
  expect((await c.snapshots.stat({ snapshotter, key: "two" })).info).toMatchObject({ parent: "base", kind: 2 });
  expect(await kind(c.snapshots.remove({ snapshotter, key: "base" }))).toBe("FailedPrecondition");
  for (const key of ["two", "view", "base"]) await c.snapshots.remove({ snapshotter, key });
  await c.snapshots.cleanup({ snapshotter });
  expect(readdirSync(join(place.path, "root/trash"))).toEqual([]);
  expect(await kind(c.snapshots.stat({ snapshotter: "zfs", key: "x" }))).toBe("InvalidArgument");
});

test("events arrive in order, and only those that were asked for", async () => {
  const stop = new AbortController();
  const seen: Envelope[] = [];
  const reading = (async () => {
    for await (const event of c.events.subscribe({ filters: ["topic~=^/containers/,namespace==test"] }, { signal: stop.signal })) {
      seen.push(event);
    }
  })();
  const one: Envelope[] = [];
  const single = (async () => {
    for await (const event of c.events.subscribe({ filters: ["event.id==e7"] }, { signal: stop.signal })) one.push(event);
  })();
  await new Promise((resolve) => setTimeout(resolve, 5));
  for (let i = 0; i < 20; i++) await c.containers.create({ container: container(`e${i}`) });
  for (let i = 0; i < 20; i++) await c.containers.delete({ id: `e${i}` });
  await c.namespaces.create({ namespace: { name: "noise" } });
  expect(await until(() => seen.length === 40)).toBe(true);
  expect(seen.map(({ topic }) => topic)).toEqual([
    ...new Array<string>(20).fill("/containers/create"),
    ...new Array<string>(20).fill("/containers/delete"),
  ]);
  expect(one.length).toBe(2);
  stop.abort();
  await Promise.all([reading, single]);
  await c.namespaces.delete({ name: "noise" });
});

test("a namespace that holds something can't be deleted", async () => {
  const other = inMemoryClients(manager, "full");
  await other.containers.create({ container: container("x") });
  expect(await message(c.namespaces.delete({ name: "full" }))).toContain("must be empty, but it still has containers");
  await other.containers.delete({ id: "x" });
  await c.namespaces.delete({ name: "full" });
  expect((await c.namespaces.get({ name: "full" })).namespace).toMatchObject({ name: "full", labels: {} });
  expect(await kind(c.namespaces.delete({ name: "full" }))).toBe("NotFound");
});

test("garbage: what nothing leads to goes, what an image, label, lease or container leads to stays", async () => {
  const g = inMemoryClients(manager, "garbage");
  const [layer, config, loose, leased] = ["layer", "config", "loose", "leased"].map((text) => Buffer.from(text)) as [
    Buffer,
    Buffer,
    Buffer,
    Buffer,
  ];
  const top = Buffer.from("manifest");
  await put(g, layer);
  await put(g, config, { "containerd.io/gc.ref.snapshot.overlayfs": "kept" });
  await put(g, loose);
  await put(g, top, { "containerd.io/gc.ref.content.l.0": digestOf(layer), "containerd.io/gc.ref.content.config": digestOf(config) });
  await g.leases.create({ id: "lease" });
  for await (const _ of g.content.write(requests({ action: WriteAction.COMMIT, ref: "leased", data: leased }), {
    headers: { "containerd-lease": "lease" },
  }));
  const target = { mediaType: "m", digest: digestOf(top), size: BigInt(top.length) };
  await g.images.create({ image: { name: "image", target } });
  for (const [key, parent] of [
    ["kept", ""],
    ["gone", ""],
    ["above", "gone"],
  ] as const) {
    await g.snapshots.prepare({ snapshotter, key: `${key}-a`, parent });
    await g.snapshots.commit({ snapshotter, key: `${key}-a`, name: key });
  }
  await g.snapshots.prepare({ snapshotter, key: "rw", parent: "kept" });
  await g.containers.create({ container: container("c1", { snapshotter, snapshotKey: "rw" }) });
  backdate(place.path, "content");
  backdate(place.path, "snapshots");

  await g.leases.create({ id: "trigger" });
  await g.leases.delete({ id: "trigger", sync: true });
  const digests = async () => {
    const list: string[] = [];
    for await (const { info } of g.content.list({})) list.push(...info.map(({ digest }) => digest));
    return list.sort();
  };
  const keys = async () => {
    const list: string[] = [];
    for await (const { info } of g.snapshots.list({ snapshotter })) list.push(...info.map(({ name }) => name));
    return list.sort();
  };
  expect(await digests()).toEqual([layer, config, top, leased].map((data) => digestOf(data)).sort());
  expect(await keys()).toEqual(["kept", "rw"]);

  await g.leases.delete({ id: "lease" });
  await g.containers.delete({ id: "c1" });
  await g.images.delete({ name: "image", sync: true });
  expect(await digests()).toEqual([]);
  expect(await keys()).toEqual([]);
});

test("two managers can't work on one root", async () => {
  expect(await message(open(place.path))).toContain("another manager works on");
});

test("after a crash directory and database agree again", async () => {
  using own = scratch("crash");
  let m = await open(own.path);
  let clients = inMemoryClients(m, "n");
  await clients.snapshots.prepare({ snapshotter, key: "lost", parent: "" });
  await clients.snapshots.prepare({ snapshotter, key: "kept", parent: "" });
  const source = (await clients.snapshots.mounts({ snapshotter, key: "lost" })).mounts[0]!.source;
  await put(clients, Buffer.from("kept"));
  await m.close();
  const root = join(own.path, "root");
  rmSync(join(source, ".."), { recursive: true });
  mkdirSync(join(root, "snapshots/4711/fs"), { recursive: true });
  writeFileSync(join(root, "content/blobs/sha256", "0".repeat(64)), "orphan");
  writeFileSync(join(root, "content/ingest/99"), "half");
  mkdirSync(join(root, "trash/5-1"), { recursive: true });

  m = await open(own.path);
  clients = inMemoryClients(m, "n");
  expect(await kind(clients.snapshots.stat({ snapshotter, key: "lost" }))).toBe("NotFound");
  expect((await clients.snapshots.stat({ snapshotter, key: "kept" })).info?.name).toBe("kept");
  await clients.snapshots.cleanup({ snapshotter });
  expect(existsSync(join(root, "snapshots/4711"))).toBe(false);
  expect(readdirSync(join(root, "trash"))).toEqual([]);
  expect(readdirSync(join(root, "content/blobs/sha256"))).toEqual([digestOf("kept").slice(7)]);
  expect(readdirSync(join(root, "content/ingest"))).toEqual([]);
  await m.close();
});

test("the same clients over a socket: the same answers and errors", async () => {
  const address = join(place.path, "c.sock");
  const server = await serve(manager, address);
  expect(await message(serve(manager, address))).toContain("another process listens");
  const remote = await connectManager(address, "test");
  expect((await remote.version.version({})).version).toBe((await c.version.version({})).version);
  await remote.containers.create({ container: container("remote") });
  expect((await c.containers.get({ id: "remote" })).container?.id).toBe("remote");
  expect(await message(remote.containers.get({ id: "none" }))).toContain('container "none" in namespace "test"');
  expect(await kind(remote.containers.get({ id: "none" }))).toBe("NotFound");
  const data = Buffer.from("over the wire".repeat(200_000));
  await put(remote, data);
  expect((await read(remote, digestOf(data))).equals(data)).toBe(true);
  await remote.content.delete({ digest: digestOf(data) });
  await remote.containers.delete({ id: "remote" });
  await remote.close();
  await server.close();
  expect(existsSync(address)).toBe(false);
  expect(await kind(connectManager(address, "test"))).toBe("Unavailable");
});

test("introspection says who it is, and keeps its id", async () => {
  const { uuid, pid } = await c.introspection.server({});
  expect(pid).toBe(BigInt(process.pid));
  expect(uuid).toMatch(/^[0-9a-f-]{36}$/);
  const { plugins } = await c.introspection.plugins({ filters: ["type==io.containerd.snapshotter.v1"] });
  expect(plugins.map(({ id }) => id)).toEqual(["overlayfs"]);
});
