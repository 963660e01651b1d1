import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { BootstrapResultSchema } from "../../gen/containerd/runtime/bootstrap/v1_pb.ts";
import { Status } from "../../gen/containerd/v1/types_pb.ts";
import { applyLayer } from "../../oci/index.ts";
import { busybox, busyboxLayer, scratch, until } from "../harness.ts";
import { createManager, inMemoryClients } from "../index.ts";
import { parseBootstrap } from "./bootstrap.ts";
import { bundlePath, createBundle, removeBundle } from "./bundle.ts";
import { shimOf } from "./runtime-name.ts";

test("a runtime's name leads to a shim's program", () => {
  using place = scratch("names");
  const program = join(place.path, "containerd-shim-test-v2");
  writeFileSync(program, "");
  chmodSync(program, 0o755);
  expect(shimOf("io.containerd.jubako.v1")).toBe("shared");
  expect(shimOf("io.containerd.test.v2", `/nowhere:${place.path}`)).toEqual({ binary: program });
  expect(shimOf(program)).toEqual({ binary: program });
  // ours stands in for runc's where that is not installed
  expect(shimOf("io.containerd.runc.v2", place.path)).toBe("shared");
  expect(() => shimOf("io.containerd.other.v1", place.path)).toThrow('binary not installed "containerd-shim-other-v1"');
  for (const bad of ["runc", "a/../b.v1", ""]) expect(() => shimOf(bad, place.path)).toThrow("invalid runtime name");
});

test("a shim's answer in three generations", () => {
  const address = "unix:///run/x.sock";
  expect(parseBootstrap(Buffer.from(`${address}\n`))).toEqual({ address, version: 2 });
  expect(parseBootstrap(Buffer.from(JSON.stringify({ version: 3, address, protocol: "ttrpc" })))).toEqual({ address, version: 3 });
  const message = toBinary(BootstrapResultSchema, create(BootstrapResultSchema, { version: 3, address, protocol: "ttrpc" }));
  expect(parseBootstrap(message)).toEqual({ address, version: 3 });
  expect(() => parseBootstrap(Buffer.from(JSON.stringify({ version: 3, address, protocol: "grpc" })))).toThrow('shim protocol "grpc"');
  expect(() => parseBootstrap(new Uint8Array(0))).toThrow("did not say its address");
});

test("removing a bundle never deletes below its rootfs", () => {
  using place = scratch("bundle");
  const bundle = join(place.path, "a/b");
  createBundle(bundle, Buffer.from("{}"));
  expect(() => createBundle(bundle, Buffer.from("{}"))).toThrow("bundle");
  writeFileSync(join(bundle, "init.pid"), "1");
  mkdirSync(join(bundle, "work"));
  removeBundle(bundle);
  expect(existsSync(bundle)).toBe(false);
  createBundle(bundle, Buffer.from("{}"));
  writeFileSync(join(bundle, "rootfs/precious"), "x");
  removeBundle(bundle);
  expect(readdirSync(bundle)).toEqual(["rootfs"]);
  expect(existsSync(join(bundle, "rootfs/precious"))).toBe(true);
});

const runtime = "io.containerd.jubako.v1";
const snapshotter = "overlayfs";
const namespace = `jubako-test-${process.pid}`;
const specOf = (args: string[]) => ({
  ociVersion: "1.0.2",
  process: { user: { uid: 0, gid: 0 }, args, env: ["PATH=/bin"], cwd: "/" },
  root: { path: "rootfs" },
  mounts: [{ destination: "/proc", type: "proc", source: "proc" }],
  linux: { namespaces: ["pid", "mount", "ipc", "uts", "network"].map((type) => ({ type })) },
});
const any = (value: unknown) => ({
  typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec",
  value: Buffer.from(JSON.stringify(value)),
});

describe.skipIf(process.getuid?.() !== 0 || !busybox)("tasks in memory (needs root and busybox)", () => {
  test("a container's whole life, and its exec's, over a restart of the manager", async () => {
    using place = scratch("tasks");
    const shimBinary = [process.execPath, join(import.meta.dirname, "../../main.ts"), "jubako-shim"];
    const open = () => createManager({ root: join(place.path, "root"), state: join(place.path, "state"), shimBinary });
    let manager = await open();
    let c = inMemoryClients(manager, namespace);
    const { mounts } = await c.snapshots.prepare({ snapshotter, key: "layer", parent: "" });
    writeFileSync(join(place.path, "layer.tar"), busyboxLayer());
    await applyLayer({ file: join(place.path, "layer.tar"), root: mounts[0]!.source });
    await c.snapshots.commit({ snapshotter, key: "layer", name: "base" });

    const make = async (id: string, args: string[]) => {
      const { mounts: rootfs } = await c.snapshots.prepare({ snapshotter, key: id, parent: "base" });
      await c.containers.create({ container: { id, runtime: { name: runtime }, spec: any(specOf(args)), snapshotter, snapshotKey: id } });
      return c.tasks.create({ containerId: id, rootfs });
    };
    const topics: string[] = [];
    const stop = new AbortController();
    const reading = (async () => {
      for await (const { topic } of c.events.subscribe({ filters: ["topic~=^/tasks/"] }, { signal: stop.signal })) topics.push(topic);
    })();

    const { pid } = await make("short", ["/bin/sh", "-c", "exit 3"]);
    expect(pid).toBeGreaterThan(0);
    expect((await c.tasks.get({ containerId: "short" })).process?.status).toBe(Status.CREATED);
    await c.tasks.start({ containerId: "short" });
    expect((await c.tasks.wait({ containerId: "short" })).exitStatus).toBe(3);
    expect((await c.tasks.delete({ containerId: "short" })).exitStatus).toBe(3);
    expect(await until(() => topics.length === 4, 1000)).toBe(true);
    expect(topics).toEqual(["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    stop.abort();
    await reading;

    await make("long", ["/bin/sleep", "1000"]);
    await c.tasks.start({ containerId: "long" });
    await c.tasks.exec({ containerId: "long", execId: "e", spec: any(specOf(["/bin/sleep", "1000"]).process) });
    const exec = await c.tasks.start({ containerId: "long", execId: "e" });
    await manager.close();
    // as a manager leaves it that is killed before it wrote the task down
    createBundle(bundlePath(join(place.path, "state"), namespace, "half"), Buffer.from("{}"));

    manager = await open();
    c = inMemoryClients(manager, namespace);
    const { tasks } = await c.tasks.list({});
    expect(tasks.map(({ id, status }) => [id, status])).toEqual([["long", Status.RUNNING]]);
    expect((await c.tasks.get({ containerId: "long", execId: "e" })).process).toMatchObject({ pid: exec.pid, status: Status.RUNNING });
    const ended = c.tasks.wait({ containerId: "long", execId: "e" });
    await c.tasks.kill({ containerId: "long", execId: "e", signal: 9 });
    expect((await ended).exitStatus).toBe(137);
    await c.tasks.deleteProcess({ containerId: "long", execId: "e" });
    const late = c.tasks.wait({ containerId: "long" }, { timeoutMs: 50 }).catch((error: Error) => error.name);
    expect(await late).toBe("DeadlineExceeded");
    await c.tasks.kill({ containerId: "long", signal: 15, all: false });
    await c.tasks.kill({ containerId: "long", signal: 9, all: true });
    await c.tasks.wait({ containerId: "long" });
    await c.tasks.delete({ containerId: "long" });
    for (const id of ["short", "long"]) {
      await c.containers.delete({ id });
      await c.snapshots.remove({ snapshotter, key: id });
    }
    expect(readdirSync(join(place.path, "state/io.containerd.runtime.v2.task", namespace))).toEqual([]);
    await manager.close();
    expect(readdirSync(join(place.path, "root/snapshots")).length).toBe(1);
    expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(place.path);
  }, 20_000);
});
