// A shim killed at its worst moment: the containers go on, and the next shim of the group has them all, with output, terminals, execs and the
// exits that nobody saw.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { TaskExitSchema } from "../gen/containerd/events_pb.ts";
import { OptionsSchema } from "../gen/containerd/runc/v1_pb.ts";
import { Events } from "../gen/containerd/services/events/ttrpc/v1_pb.ts";
import { DeleteResponseSchema } from "../gen/containerd/task/v2_pb.ts";
import { KEEP_STDIN } from "../lib/annotations.ts";
import { programCommand } from "../lib/program.ts";
import { close, O_WRONLY, open, write } from "../linux/index.ts";
import { BUSYBOX, bundle, fifo, place, RUNC, reader, spec } from "./harness.ts";
import { connectShim, serveTtrpc, survivingClient, type TaskClient } from "./index.ts";

describe.skipIf(!BUSYBOX)("a shim of its own process", () => {
  const here = place("crash");
  const address = `${here.dir}/manager.sock`;
  const topics: string[] = [];
  const exits = new Map<string, number>();
  const connections = new Set<Socket>();
  const events = createServer((socket) => connections.add(socket));
  serveTtrpc(events, Events, {
    forward({ envelope }) {
      topics.push(envelope!.topic);
      if (envelope!.topic === "/tasks/exit") {
        const exit = fromBinary(TaskExitSchema, envelope!.event!.value);
        exits.set(exit.id, exit.exitStatus);
      }
      return {};
    },
  });

  const env = { ...process.env, JUBAKO_SHIM_STATE: `${here.dir}/shim`, JUBAKO_SHIM_RUNTIME: "", TTRPC_ADDRESS: `${address}.ttrpc` };
  const command = programCommand("containerd-shim-jubako-v1");
  const call = async (id: string, verb: string): Promise<Buffer> => {
    const child = Bun.spawn([...command, "-namespace", "test", "-address", address, "-publish-binary", "x", "-id", id, verb], {
      cwd: `${here.dir}/cwd`,
      env,
      stdin: "ignore",
    });
    const out = Buffer.from(await new Response(child.stdout).arrayBuffer());
    expect(await child.exited).toBe(0);
    return out;
  };
  const started: number[] = [];
  const start = async (id: string): Promise<{ client: TaskClient; pid: number }> => {
    const client = connectShim((await call(id, "start")).toString());
    const { shimPid } = await client.connect({ id });
    if (!started.includes(shimPid)) started.push(shimPid);
    return { client, pid: shimPid };
  };
  beforeAll(() => {
    here.make();
    mkdirSync(`${here.dir}/cwd`);
    events.listen(`${address}.ttrpc`);
  });
  afterAll(() => {
    for (const pid of started) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // it has ended, as it should
      }
    }
    events.close();
    here.remove();
  });
  const gone = async (client: TaskClient): Promise<void> => {
    await client.closed;
  };
  const exec = (args: string[]) => ({ typeUrl: "", value: Buffer.from(JSON.stringify(spec("", args).process)) });

  test("twenty starts at once make one shim", async () => {
    const shims = await Promise.all(Array.from({ length: 20 }, (_, i) => start(`many${i}`)));
    expect(new Set(shims.map((shim) => shim.pid)).size).toBe(1);
    for (const { client } of shims) client.close();
  }, 20_000);

  test("kill -9: everything is adopted", async () => {
    const { client, pid } = await start("long");
    const outs = Object.fromEntries(
      ["long", "short", "held", "tty", "exec"].map((name) => [name, fifo(`${here.dir}/${name}.out`)]),
    ) as Record<string, string>;
    const stdin = fifo(`${here.dir}/held.in`);
    const ttyIn = fifo(`${here.dir}/tty.in`);
    const make = (id: string, args: string[], io: object, terminal = false) =>
      client.create({ id, bundle: bundle(here, id, args, terminal, {}, { [KEEP_STDIN]: "true" }), ...io, terminal });
    await make("long", ["sleep", "1000"], {});
    await make("short", ["sh", "-c", "sleep 0.3; echo late; exit 9"], { stdout: outs.short! });
    await make("held", ["cat"], { stdin, stdout: outs.held! });
    await make("tty", ["sh", "-c", "echo before; read line; echo after $line; exit 4"], { stdin: ttyIn, stdout: outs.tty! }, true);
    await make("waiting", ["sh", "-c", "exit 6"], {});
    for (const id of ["long", "short", "held", "tty"]) await client.start({ id });
    await client.exec({ id: "long", execId: "x1", stdout: outs.exec!, spec: exec(["sh", "-c", "sleep 0.3; echo from exec; exit 5"]) });
    await client.exec({ id: "long", execId: "x2", spec: exec(["sh", "-c", "exit 8"]) });
    await client.start({ id: "long", execId: "x1" });
    const pids = Object.fromEntries(
      await Promise.all(["long", "short", "held", "tty", "waiting"].map(async (id) => [id, (await client.state({ id })).pid])),
    );

    process.kill(pid, "SIGKILL");
    await gone(client);
    await Bun.sleep(600);

    const second = await start("long");
    expect(second.pid).not.toBe(pid);
    const shim = second.client;
    for (const id of Object.keys(pids)) expect((await shim.state({ id })).pid).toBe(pids[id]);
    expect((await shim.state({ id: "long" })).status).toBe(2);
    expect((await shim.state({ id: "waiting" })).status).toBe(1);
    // What ended meanwhile, with its status and output.
    expect((await shim.wait({ id: "short" })).exitStatus).toBe(9);
    expect((await shim.wait({ id: "long", execId: "x1" })).exitStatus).toBe(5);
    const late = reader(outs.short!);
    await late.until("late\n");
    const fromExec = reader(outs.exec!);
    await fromExec.until("from exec\n");
    for (let i = 0; i < 100 && !exits.has("x1"); i++) await Bun.sleep(10);
    expect([exits.get("short"), exits.get("x1")]).toEqual([9, 5]);
    // Standard input was held all the time.
    const held = reader(outs.held!);
    let fd = open(stdin, O_WRONLY);
    write(fd, Buffer.from("still here\n"));
    close(fd);
    await held.until("still here\n");
    await shim.closeIO({ id: "held", stdin: true });
    expect((await shim.wait({ id: "held" })).exitStatus).toBe(0);
    // The terminal goes on.
    const tty = reader(outs.tty!);
    fd = open(ttyIn, O_WRONLY);
    write(fd, Buffer.from("typed\n"));
    expect((await shim.wait({ id: "tty" })).exitStatus).toBe(4);
    close(fd);
    await tty.until("after typed\r\n");
    expect(tty.text()).toContain("before\r\n");
    // What had not been started can be started.
    await shim.start({ id: "waiting" });
    expect((await shim.wait({ id: "waiting" })).exitStatus).toBe(6);
    await shim.start({ id: "long", execId: "x2" });
    expect((await shim.wait({ id: "long", execId: "x2" })).exitStatus).toBe(8);
    await shim.kill({ id: "long", signal: 9 });
    expect((await shim.wait({ id: "long" })).exitStatus).toBe(137);
    for (const id of Object.keys(pids)) await shim.delete({ id });
    for (const one of [late, fromExec, held, tty]) one.close();
    const [group] = readdirSync(`${here.dir}/shim`);
    expect(readdirSync(`${here.dir}/shim/${group}/c`)).toEqual([]);
    // Empty, and asked to: it ends.
    for (const name of readdirSync(`${here.dir}/shim/${group}/pending`)) await shim.shutdown({ id: name });
    await shim.shutdown({ id: "long" }).catch(() => {});
    await gone(shim);
    for (let i = 0; i < 100 && existsSync(`${here.dir}/shim/${group}`); i++) await Bun.sleep(10);
    expect(readdirSync(`${here.dir}/shim`)).toEqual([]);
  }, 20_000);

  test("delete cleans up after a dead shim, and only that task", async () => {
    const { client, pid } = await start("d1");
    for (const id of ["d1", "d2"]) {
      await client.create({ id, bundle: bundle(here, id, ["sleep", "1000"]) });
      await client.start({ id });
    }
    const task = (await client.state({ id: "d1" })).pid;
    process.kill(pid, "SIGKILL");
    await gone(client);
    const response = fromBinary(DeleteResponseSchema, await call("d1", "delete"));
    expect([response.pid, response.exitStatus]).toEqual([task, 137]);
    expect(existsSync(`/proc/${task}`)).toBe(false);
    const again = await start("d2");
    expect((await again.client.state({ id: "d2" })).status).toBe(2);
    expect((await again.client.state({ id: "d1" }).catch((e) => e)).kind).toBe("NotFound");
    fromBinary(DeleteResponseSchema, await call("d2", "delete"));
    expect((await again.client.state({ id: "d2" }).catch((e) => e)).kind).toBe("NotFound");
    await again.client.shutdown({ id: "d2" });
    again.client.close();
  }, 20_000);

  test.skipIf(!RUNC)(
    "over runc: adopted too, with the status that the kernel tells a stranger",
    async () => {
      const binary = create(OptionsSchema, { binaryName: RUNC!, root: `${here.dir}/runc` });
      const options = { typeUrl: OptionsSchema.typeName, value: toBinary(OptionsSchema, binary) };
      const { client, pid } = await start("r1");
      await client.create({
        id: "r1",
        bundle: bundle(here, "r1", ["sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 11"]),
        options,
      });
      await client.start({ id: "r1" });
      const task = (await client.state({ id: "r1" })).pid;
      process.kill(pid, "SIGKILL");
      await gone(client);
      const { client: second } = await start("r1");
      expect(await second.state({ id: "r1" })).toMatchObject({ pid: task, status: 2 });
      await Bun.write(`${here.rootfs}/tmp/go`, "");
      // Before Linux 6.15 only the parent learns it.
      expect([11, 255]).toContain((await second.wait({ id: "r1" })).exitStatus);
      await second.delete({ id: "r1" });
      await second.shutdown({ id: "r1" });
      second.close();
    },
    20_000,
  );

  test("a surviving client's calls go on with the next shim: creates and starts under way all succeed", async () => {
    const first = await start("s0");
    let following: Promise<TaskClient> | undefined;
    const next = () => {
      following ??= start("s0").then(({ client }) => client);
      return following;
    };
    const client = survivingClient(first.client, next);
    const ids = Array.from({ length: 8 }, (_, i) => `s${i}`);
    const dirs = new Map(ids.map((id) => [id, bundle(here, id, ["sleep", "1000"])]));
    const running = ids.map(async (id) => {
      await client.create({ id, bundle: dirs.get(id)! });
      return client.start({ id });
    });
    await Bun.sleep(12);
    process.kill(first.pid, "SIGKILL");
    const pids = (await Promise.all(running)).map(({ pid }) => pid);
    expect(new Set(pids).size).toBe(8);
    const states = await Promise.all(ids.map((id) => client.state({ id })));
    expect(states.map(({ pid, status }) => [pid, status])).toEqual(pids.map((pid) => [pid, 2]));
    for (const id of ids) {
      const exit = client.wait({ id });
      await client.kill({ id, signal: 9 });
      expect((await exit).exitStatus).toBe(137);
      await client.delete({ id });
    }
    const last = await next();
    await last.shutdown({ id: "s0" });
    last.close();
  }, 20_000);

  test("events come in order", () => {
    const of = topics.filter(
      (topic) => topic === "/tasks/create" || topic === "/tasks/start" || topic === "/tasks/exit" || topic === "/tasks/delete",
    );
    expect(of.indexOf("/tasks/create")).toBe(0);
    expect(of.filter((topic) => topic === "/tasks/delete").length).toBeGreaterThanOrEqual(6);
    expect(topics).toContain("/tasks/exec-added");
    expect(topics).toContain("/tasks/exec-started");
  });

  test("events wait for a manager that is away; the kernel's kill for want of memory is one", async () => {
    const { client } = await start("m1");
    const limited = bundle(here, "m1", ["tail", "/dev/zero"], false, { memory: { limit: 16 << 20, swap: 16 << 20 } });
    topics.length = 0;
    events.close();
    for (const socket of connections) socket.destroy();
    await client.create({ id: "m1", bundle: limited });
    await client.start({ id: "m1" });
    expect((await client.wait({ id: "m1" })).exitStatus).toBe(137);
    await client.delete({ id: "m1" });
    expect(topics).toEqual([]);
    events.listen(`${address}.ttrpc`);
    for (let i = 0; i < 300 && !topics.includes("/tasks/delete"); i++) await Bun.sleep(20);
    expect(topics.filter((topic) => topic !== "/tasks/oom")).toEqual(["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    expect(topics).toContain("/tasks/oom");
    await client.shutdown({ id: "m1" });
    client.close();
  }, 20_000);
});
