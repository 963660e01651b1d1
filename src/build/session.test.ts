// Builds of LLB as a door drives them, with the real kernel: definitions, references, the cache, failed steps, containers beside a build.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { busybox, busyboxLayer } from "../containerd/harness.ts";
import { DefinitionSchema, MountSchema, MountType, OpSchema } from "../gen/pb_pb.ts";
import { digestOf } from "../oci/index.ts";
import { edge, type Graph } from "./graph/llb.ts";
import { base, contextHost, leftOf, load, mkfile, read, sh, startBuilder, type TestBuilder, text } from "./harness.ts";
import { fileOp, mergeOp, sourceOp } from "./harness-operations.ts";

describe.skipIf(process.getuid?.() !== 0 || !busybox)("sessions (needs root and busybox)", () => {
  let t: TestBuilder;
  beforeAll(async () => {
    t = await startBuilder(busyboxLayer());
  });
  afterAll(() => t[Symbol.asyncDispose]());

  test("an exec upon an image; the same again is cached, and vertices tell how they go", async () => {
    await using session = await t.open();
    const make = (graph: Graph) => sh(graph, "echo hello > /out; echo said");
    expect(await read(session, make, "/out")).toBe("hello\n");
    const logs = session.events.flatMap((event) => (event.kind === "log" ? [text(event.bytes)] : []));
    expect(logs.join("")).toBe("said\n");
    const states = session.events.flatMap((event) => (event.kind === "vertex" && event.name.startsWith("/bin/sh") ? [event] : []));
    expect(states.map(({ started, completed, cached }) => [started !== undefined, completed !== undefined, cached])).toEqual([
      [false, false, false],
      [true, false, false],
      [true, true, false],
    ]);
    await using again = await t.open();
    expect(await read(again, make, "/out")).toBe("hello\n");
    expect(again.events.some((event) => event.kind === "vertex" && event.cached && event.name.startsWith("/bin/sh"))).toBe(true);
    await using fresh = await t.open({ noCache: true });
    await load(fresh, make).evaluate();
    expect(fresh.events.some((event) => event.kind === "log")).toBe(true);
  });

  test("a change of what a read-only mount does not show changes nothing", async () => {
    const make = (other: string) => (graph: Graph) => {
      const source = edge(graph.add(fileOp(undefined, [mkfile("/used", "same"), mkfile("/other", other)])));
      return sh(graph, "cat /used > /content-out; echo ran", [{ dest: "/used", source, selector: "/used", readonly: true }]);
    };
    await using one = await t.open();
    await load(one, make("1")).evaluate();
    await using two = await t.open();
    await load(two, make("2")).evaluate();
    expect(two.events.some((event) => event.kind === "log")).toBe(false);
  });

  test("a miss says which part of a step is new", async () => {
    const make = (A: string) => (graph: Graph) => {
      const from = edge(graph.add(sourceOp("local://context")));
      const copied = edge(
        graph.add(fileOp(base(graph), [{ copy: { src: "/", dest: "/ctx", dirCopyContents: true, createDestPath: true }, from }])),
      );
      const meta = { args: ["/bin/sh", "-c", ": explained"], env: ["PATH=/bin", `A=${A}`], cwd: "/" };
      return sh(graph, "", [], { meta }, copied);
    };
    const directory = t.files({ same: "1", "d/changed": "1" });
    await using one = await t.open({ explain: true }, contextHost(directory));
    await load(one, make("1")).evaluate();
    writeFileSync(join(directory, "d/changed"), "2");
    await using two = await t.open({ explain: true }, contextHost(directory));
    await load(two, make("2")).evaluate();
    const misses = two.events.flatMap((event) => (event.kind === "miss" ? [event] : []));
    expect(misses.map(({ earlier }) => earlier?.changed.map(({ name }) => name))).toEqual([
      ["file d/changed", "files of /"],
      ["variable A", "root file system"],
    ]);
    expect(misses[1]!.earlier!.changed[0]).toEqual({ name: "variable A", before: "1", now: "2" });
    await using three = await t.open({ explain: true }, contextHost(directory));
    await load(three, make("2")).evaluate();
    expect(three.events.some(({ kind }) => kind === "miss")).toBe(false);
  });

  test("definitions that are not well-formed are refused", async () => {
    await using session = await t.open();
    const op = (init: object) => toBinary(OpSchema, create(OpSchema, init as never));
    const refused = (def: Uint8Array[], message: string) => expect(() => session.load(create(DefinitionSchema, { def }))).toThrow(message);
    const source = op({ op: { case: "source", value: { identifier: "local://x" } } });
    const last = (digest: string, index = 0n) => op({ inputs: [{ digest, index }] });
    refused([source], "the last operation must have one input");
    refused([source, last(digestOf("other"))], "is missing");
    refused([source, last(digestOf(source), 1n)], "has no output 1");
    refused([source, last(digestOf(source), -3n)], "has no output -3");
    refused([Buffer.from("\xff\xff\xff", "latin1"), last("x")], "failed to parse LLB operation");
    const badExec = op({
      inputs: [{ digest: digestOf(source) }],
      op: { case: "exec", value: { meta: { args: ["x"] }, mounts: [{ dest: "/", input: 3n }] } },
    });
    refused([source, badExec, last(digestOf(badExec))], "invalid mount input index");
    const noRoot = op({ op: { case: "exec", value: { meta: { args: ["x"] }, mounts: [{ dest: "/x", input: -1n }] } } });
    refused([noRoot, last(digestOf(noRoot))], "with no rootfs");
    const twice = op({
      op: {
        case: "file",
        value: { actions: [0, 1].map(() => ({ input: -1n, output: 0n, action: { case: "mkdir", value: { path: "/x" } } })) },
      },
    });
    refused([twice, last(digestOf(twice))], "invalid file action output index");
    const ahead = op({
      op: { case: "file", value: { actions: [{ input: 0n, output: 0n, action: { case: "mkdir", value: { path: "/x" } } }] } },
    });
    refused([ahead, last(digestOf(ahead))], "invalid file action input index");
    refused(
      Array.from({ length: 50_001 }, () => source),
      "more than 50000",
    );
    expect(session.load(create(DefinitionSchema)).edge).toBeUndefined();
  });

  test("thousands of vertices upon each other", async () => {
    await using session = await t.open();
    const ref = load(session, (graph) => {
      let at = base(graph);
      for (let i = 0; i < 5000; i++) at = edge(graph.add(mergeOp([at])));
      return at;
    });
    expect((await ref.readDir("/bin", "busy*")).length).toBe(1);
    expect(ref.definition().def.length).toBe(5002);
  });

  test("a failed step is kept and can be entered, with what it held and its mounts", async () => {
    await using session = await t.open({ keepFailed: true }, { secret: async () => Buffer.from("s3") });
    const secret = { dest: "/secret", mountType: MountType.SECRET, secretOpt: { ID: "s", mode: 0o400 } };
    const ref = load(session, (graph) => sh(graph, "echo half > /half; echo out > /o/file; exit 9", [{ dest: "/o", output: 1 }, secret]));
    const error = await ref.evaluate().then(
      () => undefined,
      (reason: unknown) => reason,
    );
    const step = session.failedStep(error)!;
    expect(text(await step.mounts[0]!.readFile("/half"))).toBe("half\n");
    expect(text(await step.mounts[1]!.readFile("/file"))).toBe("out\n");
    let out = "";
    const process = await step.enter({
      args: ["/bin/sh"],
      input: true,
      onOutput: (_, bytes) => {
        out += text(bytes);
      },
    });
    await process.write(Buffer.from("cat /half /o/file /secret; exit 7\n"));
    process.closeInput();
    expect(await process.exited).toBe(7);
    expect(out).toBe("half\nout\ns3");
    await step.release();
  });

  test("containers beside a build: processes, input, signals", async () => {
    await using session = await t.open();
    const ref = load(session, (graph) => sh(graph, "echo in > /in"));
    const mount = create(MountSchema, { dest: "/" });
    const container = await session.container({ mounts: [{ mount, ref }], network: "none", hostname: "", extraHosts: [] });
    let out = "";
    const request = {
      env: ["PATH=/bin"],
      cwd: "/",
      user: "",
      terminal: false,
      onOutput: (_: number, bytes: Uint8Array) => {
        out += text(bytes);
      },
    };
    const init = await container.run({ ...request, args: ["/bin/sleep", "100"], input: false });
    const other = await container.run({ ...request, args: ["/bin/sh", "-c", "cat /in; cat"], input: true });
    await other.write(Buffer.from("typed"));
    other.closeInput();
    expect(await other.exited).toBe(0);
    expect(out).toBe("in\ntyped");
    await init.signal("SIGKILL");
    expect(await init.exited).toBe(137);
    await container.release();
  });

  test("builds at once do the same step once; one that goes away does not take the other with it", async () => {
    const make = (name: string) => (graph: Graph) => sh(graph, `: ${name}; sleep 0.4; cat /proc/uptime > /when; echo ran`);
    await using one = await t.open();
    await using two = await t.open();
    const both = await Promise.all([one, two].map((session) => read(session, make("same"), "/when")));
    expect(both[0]).toBe(both[1]!);
    const ran = (session: typeof one) => session.events.filter(({ kind }) => kind === "log").length;
    expect(ran(one) + ran(two)).toBe(1);
    const leaving = new AbortController();
    await using three = await t.open({ signal: leaving.signal });
    await using four = await t.open();
    const first = load(three, make("left")).evaluate();
    const second = read(four, make("left"), "/when");
    setTimeout(() => leaving.abort(new Error("gone")), 200);
    await expect(first).rejects.toThrow("gone");
    expect(await second).toMatch(/^\d/);
  });

  test("a cancelled build ends its steps at once", async () => {
    const leaving = new AbortController();
    await using session = await t.open({ signal: leaving.signal });
    const ref = load(session, (graph) => sh(graph, "echo begun; sleep 100"));
    setTimeout(() => leaving.abort(new Error("enough")), 300);
    const start = performance.now();
    await expect(ref.evaluate()).rejects.toThrow("enough");
    expect(performance.now() - start).toBeLessThan(5000);
    await expect(load(session, (graph) => sh(graph, "true after")).evaluate()).rejects.toThrow("enough");
  });

  test("nothing is left", async () => {
    expect(await leftOf(t)).toEqual([]);
  });
});
