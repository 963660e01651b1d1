// The Task service over our own runtime, and over runc's command line: real containers, real FIFOs and terminals.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { KEEP_STDIN } from "../lib/annotations.ts";
import { close, O_WRONLY, open, write } from "../linux/index.ts";
import { BUSYBOX, bundle, fifo, place, RUNC, reader, spec } from "./harness.ts";
import { connectShim, type Shim, serveShim, type TaskClient } from "./index.ts";

const failure = (call: Promise<unknown>): Promise<{ kind: string; message: string }> =>
  call.then(
    () => {
      throw new Error("the call succeeded");
    },
    (error) => ({ kind: error.kind, message: error.message }),
  );

for (const [name, program] of [
  ["our runtime", ""],
  ["runc", RUNC],
] as const)
  describe.skipIf(!BUSYBOX || program === undefined)(`tasks over ${name}`, () => {
    const here = place("tasks");
    let shim: Shim;
    let client: TaskClient;
    const ids = new Set<string>();
    const before = process.env.JUBAKO_SHIM_RUNTIME;
    beforeAll(async () => {
      here.make();
      process.env.JUBAKO_SHIM_RUNTIME = program;
      shim = await serveShim({ namespace: "test", state: `${here.dir}/state`, listen: `${here.dir}/sock` });
      const connected = connectShim(`unix://${here.dir}/sock`);
      client = {
        ...connected,
        create(request, ...rest) {
          ids.add(request.id!);
          return connected.create(request, ...rest);
        },
      };
    });
    afterAll(async () => {
      // what a test that failed left running
      for (const id of ids) {
        await client.kill({ id, signal: 9, all: true }).catch(() => {});
        await client.delete({ id }).catch(() => {});
      }
      client.close();
      await shim.close();
      if (before === undefined) delete process.env.JUBAKO_SHIM_RUNTIME;
      else process.env.JUBAKO_SHIM_RUNTIME = before;
      here.remove();
    });

    test("create, start, wait, delete", async () => {
      const stdout = fifo(`${here.dir}/a.out`);
      const out = reader(stdout);
      const id = "a";
      const { pid } = await client.create({ id, bundle: bundle(here, id, ["sh", "-c", "echo hello; exit 7"]), stdout });
      expect(pid).toBeGreaterThan(1);
      expect((await client.state({ id })).status).toBe(1);
      expect((await failure(client.create({ id, bundle: `${here.dir}/bundle-a` }))).kind).toBe("AlreadyExists");
      const wait = client.wait({ id });
      expect((await client.start({ id })).pid).toBe(pid);
      const exit = await wait;
      expect(exit.exitStatus).toBe(7);
      await out.until("hello\n");
      expect((await client.state({ id })).status).toBe(3);
      expect((await client.delete({ id })).exitStatus).toBe(7);
      expect(await out.end).toBe("hello\n");
      expect((await failure(client.state({ id }))).message).toBe("container not created: not found");
      expect(existsSync(`${here.dir}/state/c/a`)).toBe(false);
    });

    test("kill, and what can't be done in a state", async () => {
      const id = "b";
      await client.create({ id, bundle: bundle(here, id, ["sleep", "100"]) });
      await client.start({ id });
      const wait = client.wait({ id });
      expect((await failure(client.delete({ id }))).kind).toBe("FailedPrecondition");
      expect((await failure(client.start({ id }))).message).toBe("cannot start a running process: failed precondition");
      expect((await failure(client.state({ id, execId: "no" }))).message).toBe("process does not exist no: not found");
      await client.kill({ id, signal: 9 });
      expect((await wait).exitStatus).toBe(137);
      expect(await failure(client.kill({ id, signal: 9 }))).toEqual({ kind: "NotFound", message: "process already finished: not found" });
      expect((await failure(client.exec({ id, execId: "x", spec: { value: Buffer.from("{}") } }))).kind).toBe("FailedPrecondition");
      await client.delete({ id });
    });

    test("a created task can be deleted; a program that isn't there makes start or create fail", async () => {
      const id = "c";
      await client.create({ id, bundle: bundle(here, id, ["sleep", "100"]) });
      await client.delete({ id });
      bundle(here, id, ["no-such-program"]);
      const error = await failure(client.create({ id, bundle: `${here.dir}/bundle-c` }).then(() => client.start({ id })));
      expect(error.message).toContain("executable file not found in $PATH");
      await client.delete({ id }).catch(() => {});
    });

    test("stdin that is kept stays open when its writer goes away, and ends with CloseIO", async () => {
      const id = "d";
      const stdin = fifo(`${here.dir}/d.in`);
      const stdout = fifo(`${here.dir}/d.out`);
      const out = reader(stdout);
      await client.create({ id, bundle: bundle(here, id, ["cat"], false, {}, { [KEEP_STDIN]: "true" }), stdin, stdout });
      await client.start({ id });
      const wait = client.wait({ id });
      for (const line of ["one\n", "two\n"]) {
        const fd = open(stdin, O_WRONLY);
        write(fd, Buffer.from(line));
        close(fd);
        await out.until(line);
      }
      await client.closeIO({ id, stdin: true });
      expect((await wait).exitStatus).toBe(0);
      await client.delete({ id });
      expect(await out.end).toBe("one\ntwo\n");
    });

    test("other stdin waits for its first writer, and ends with it, whenever it comes and goes", async () => {
      const id = "d2";
      const send = (path: string, text: string) => {
        const fd = open(path, O_WRONLY);
        write(fd, Buffer.from(text));
        close(fd);
      };
      const names = ["before", "after", "early", "late"];
      const ins = Object.fromEntries(names.map((name) => [name, fifo(`${here.dir}/d2.${name}.in`)])) as Record<string, string>;
      const outs = Object.fromEntries(names.map((name) => [name, fifo(`${here.dir}/d2.${name}.out`)])) as Record<string, string>;
      const readers = names.map((name) => reader(outs[name]!));
      const io = (name: string) => ({ stdin: ins[name]!, stdout: outs[name]! });
      for (const name of ["before", "after"]) await client.create({ id: name, bundle: bundle(here, name, ["cat"]), ...io(name) });
      send(ins.before!, "before");
      await Promise.all(["before", "after"].map((each) => client.start({ id: each })));
      await Bun.sleep(50);
      expect((await client.state({ id: "after" })).status).toBe(2);
      send(ins.after!, "after");
      await client.create({ id, bundle: bundle(here, id, ["sleep", "100"]) });
      await client.start({ id });
      const cat = { typeUrl: "", value: Buffer.from(JSON.stringify(spec("", ["cat"]).process)) };
      for (const execId of ["early", "late"]) await client.exec({ id, execId, ...io(execId), spec: cat });
      // A writer that waits for its reader, as ctr's does.
      const waiting = Bun.spawn(["sh", "-c", 'printf early > "$1"', "sh", ins.early!]);
      for (const execId of ["early", "late"]) await client.start({ id, execId });
      await Bun.sleep(50);
      send(ins.late!, "late");
      expect(await Promise.all(readers.map((each) => each.end))).toEqual(names);
      await waiting.exited;
      for (const execId of ["early", "late"]) expect((await client.wait({ id, execId })).exitStatus).toBe(0);
      for (const each of ["before", "after"]) {
        expect((await client.wait({ id: each })).exitStatus).toBe(0);
        await client.delete({ id: each });
      }
      await client.kill({ id, signal: 9 });
      await client.wait({ id });
      await client.delete({ id });
    });

    test("execs: added, started, waited for, deleted", async () => {
      const id = "e";
      const stdout = fifo(`${here.dir}/e.out`);
      const stderr = fifo(`${here.dir}/e.err`);
      const out = reader(stdout);
      const err = reader(stderr);
      await client.create({ id, bundle: bundle(here, id, ["sleep", "100"]) });
      await client.start({ id });
      const run = { ...spec("", ["sh", "-c", "echo to out; echo to err >&2; exit 3"]).process };
      const any = { typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", value: Buffer.from(JSON.stringify(run)) };
      await client.exec({ id, execId: "x1", stdout, stderr, spec: any });
      expect((await failure(client.exec({ id, execId: "x1", spec: any }))).message).toBe("id x1: already exists");
      expect((await client.state({ id, execId: "x1" })).status).toBe(1);
      const wait = client.wait({ id, execId: "x1" });
      const { pid } = await client.start({ id, execId: "x1" });
      expect(pid).toBeGreaterThan(1);
      expect((await wait).exitStatus).toBe(3);
      const deleted = await client.delete({ id, execId: "x1" });
      expect([deleted.pid, deleted.exitStatus]).toEqual([pid, 3]);
      expect([await out.end, await err.end]).toEqual(["to out\n", "to err\n"]);
      await client.exec({
        id,
        execId: "x2",
        spec: { ...any, value: Buffer.from(JSON.stringify({ ...run, args: ["no-such-program"] })) },
      });
      expect((await failure(client.start({ id, execId: "x2" }))).message).toContain("executable file not found in $PATH");
      await client.delete({ id, execId: "x2" });
      expect((await client.pids({ id })).processes.length).toBe(1);
      await client.kill({ id, signal: 9 });
      await client.wait({ id });
      await client.delete({ id });
    });

    test.skipIf(program !== "")(
      "an exec waits at its gate for its start, or for its removal, and is made anew where it ended there",
      async () => {
        const id = "g";
        const stdout = fifo(`${here.dir}/g.out`);
        const out = reader(stdout);
        await client.create({ id, bundle: bundle(here, id, ["sleep", "100"]) });
        await client.start({ id });
        const exec = (...args: string[]) => ({ typeUrl: "", value: Buffer.from(JSON.stringify(spec("", args).process)) });
        const others = async (count: number): Promise<number[]> => {
          const init = (await client.state({ id })).pid;
          for (let tries = 0; ; tries++) {
            const pids = (await client.pids({ id })).processes.map((process) => process.pid).filter((pid) => pid !== init);
            if (pids.length === count || tries === 200) return pids;
            await Bun.sleep(5);
          }
        };
        await client.exec({ id, execId: "g1", spec: exec("true") });
        expect(await others(1)).toHaveLength(1);
        expect((await client.state({ id, execId: "g1" })).status).toBe(1);
        await client.delete({ id, execId: "g1" });
        expect(await others(0)).toHaveLength(0);

        await client.exec({ id, execId: "g2", stdout, spec: exec("echo", "once") });
        const [waiting] = await others(1);
        process.kill(waiting!, "SIGKILL");
        expect(await others(0)).toHaveLength(0);
        // its shim hears of that a moment later than the cgroup's list of processes
        await Bun.sleep(100);
        const wait = client.wait({ id, execId: "g2" });
        expect((await client.start({ id, execId: "g2" })).pid).not.toBe(waiting!);
        expect((await wait).exitStatus).toBe(0);
        await client.delete({ id, execId: "g2" });
        expect(await out.end).toBe("once\n");

        // More than are made in advance, and a container that goes with all of them.
        for (let i = 0; i < 8; i++) await client.exec({ id, execId: `g${10 + i}`, spec: exec("true") });
        expect((await others(4)).length).toBe(4);
        expect((await client.start({ id, execId: "g17" })).pid).toBeGreaterThan(1);
        await client.kill({ id, signal: 9 });
        await client.wait({ id });
        await client.delete({ id });
      },
    );

    test("a terminal: size, echo, all output before the exit", async () => {
      const id = "t";
      const stdin = fifo(`${here.dir}/t.in`);
      const stdout = fifo(`${here.dir}/t.out`);
      const out = reader(stdout);
      const script =
        "tty; echo ready; read line; stty size; echo got $line; dd if=/dev/zero bs=1000 count=200 2>/dev/null | tr '\\0' x; echo end";
      await client.create({ id, bundle: bundle(here, id, ["sh", "-c", script], true), stdin, stdout, terminal: true });
      await client.start({ id });
      const wait = client.wait({ id });
      await out.until("ready");
      await client.resizePty({ id, width: 101, height: 33 });
      const fd = open(stdin, O_WRONLY);
      write(fd, Buffer.from("typed\n"));
      expect((await wait).exitStatus).toBe(0);
      await out.until("end\r\n");
      close(fd);
      await client.delete({ id });
      const text = await out.end;
      expect(text).toContain("/dev/pts/0\r\n");
      expect(text).toContain("33 101\r\n");
      expect(text).toContain("typed\r\n");
      expect(text).toContain("got typed\r\n");
      expect(text.match(/x+end/)?.[0].length).toBe(200_003);
    });

    test("pause, resume, stats, pids", async () => {
      const id = "p";
      await client.create({ id, bundle: bundle(here, id, ["sleep", "100"]) });
      const checkpoint = () => failure(client.checkpoint({ id, path: `${here.dir}/checkpoint` }));
      expect((await checkpoint()).kind).toBe("FailedPrecondition");
      await client.start({ id });
      // With ours it is CRIU that knows whether it can (test/vm/checkpoint-layers.test.ts).
      if (name === "runc") expect((await checkpoint()).kind).toBe("Unimplemented");
      await client.pause({ id });
      expect((await client.state({ id })).status).toBe(4);
      await client.resume({ id });
      expect((await client.state({ id })).status).toBe(2);
      const stats = (await client.stats({ id })).stats!;
      expect(stats.typeUrl).toMatch(/^io\.containerd\.cgroups\.v[12]\.Metrics$/);
      expect(stats.value.length).toBeGreaterThan(10);
      const resources = { pids: { limit: 33 } };
      await client.update({ id, resources: { typeUrl: "", value: Buffer.from(JSON.stringify(resources)) } });
      await client.kill({ id, signal: 15, all: true });
      await client.kill({ id, signal: 9, all: true });
      expect((await client.wait({ id })).exitStatus).toBe(137);
      await client.delete({ id });
    });

    test("file:// and binary:// take the output", async () => {
      const id = "f";
      const log = `${here.dir}/logs/f.log`;
      await client.create({
        id,
        bundle: bundle(here, id, ["sh", "-c", "echo out; echo err >&2"]),
        stdout: `file://${log}`,
        stderr: `file://${log}`,
      });
      await client.start({ id });
      await client.wait({ id });
      await client.delete({ id });
      expect(readFileSync(log, "utf8").split("\n").sort()).toEqual(["", "err", "out"]);
      const script = `${here.dir}/logger`;
      writeFileSync(
        script,
        `#!/bin/sh\nexec 5>&-\n{ echo "$CONTAINER_ID $CONTAINER_NAMESPACE $1 $2"; cat <&3; } > ${here.dir}/binary.log\n`,
        { mode: 0o755 },
      );
      const uri = `binary://${script}?key=value`;
      await client.create({ id, bundle: `${here.dir}/bundle-f`, stdout: uri, stderr: uri });
      await client.start({ id });
      await client.wait({ id });
      await client.delete({ id });
      for (let i = 0; i < 100 && !readFileSync(`${here.dir}/binary.log`, "utf8").includes("out"); i++) await Bun.sleep(10);
      expect(readFileSync(`${here.dir}/binary.log`, "utf8")).toBe("f test key value\nout\n");
    });

    test("hostile requests are refused", async () => {
      for (const id of ["", "..", "a/b", "a b", "x".repeat(300)])
        expect((await failure(client.create({ id, bundle: here.dir }))).kind).toBe("InvalidArgument");
      expect((await failure(client.create({ id: "h", bundle: "/no/such/bundle" }))).kind).toBe("InvalidArgument");
      bundle(here, "h", ["true"]);
      expect((await failure(client.create({ id: "h", bundle: `${here.dir}/bundle-h`, stdout: "ftp://x" }))).kind).toBe("InvalidArgument");
      await failure(client.create({ id: "h", bundle: `${here.dir}/bundle-h`, stdout: "/no/such/fifo" }));
      expect((await failure(client.checkpoint({ id: "h", path: "/none" }))).kind).toBe("NotFound");
      expect(existsSync(`${here.dir}/state/c/h`)).toBe(false);
    });

    test("no descriptor is left open", async () => {
      const { readdirSync } = await import("node:fs");
      const count = () => readdirSync("/proc/self/fd").length;
      const once = async (id: string) => {
        const stdout = fifo(`${here.dir}/${id}.out`);
        const stdin = fifo(`${here.dir}/${id}.in`);
        await client.create({ id, bundle: bundle(here, id, ["true"]), stdin, stdout, stderr: stdout });
        await client.start({ id });
        await client.wait({ id });
        await client.delete({ id });
      };
      await once("n0");
      const first = count();
      for (let i = 1; i < 5; i++) await once(`n${i}`);
      // Watches end a moment after the calls.
      for (let i = 0; i < 50 && count() > first; i++) await Bun.sleep(10);
      expect(count()).toBeLessThanOrEqual(first);
    });
  });
