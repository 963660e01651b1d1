// Exec operations, with the real kernel: mounts of every kind, outputs, what a step may have.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { busybox, busyboxLayer } from "../../containerd/harness.ts";
import { MountType, NetMode, SecurityMode } from "../../gen/pb_pb.ts";
import { edge, type Graph } from "../graph/llb.ts";
import { contextHost, leftOf, load, mkfile, read, sh, startBuilder, type TestBuilder } from "../harness.ts";
import { execOp, fileOp, type MountInit, sourceOp } from "../harness-operations.ts";

describe.skipIf(process.getuid?.() !== 0 || !busybox)("steps (needs root and busybox)", () => {
  let t: TestBuilder;
  beforeAll(async () => {
    t = await startBuilder(busyboxLayer());
  });
  afterAll(() => t[Symbol.asyncDispose]());

  test("writable mounts with outputs are trees of their own", async () => {
    await using session = await t.open();
    const outputs = (index: number) => (graph: Graph) => {
      const start = edge(graph.add(fileOp(undefined, [{ mkdir: { path: "/sub", mode: 0o750 } }, mkfile("/sub/f", "old")])));
      const { digest } = sh(graph, "echo a > /a/f; cat /b/f; echo new > /b/f; echo more > /b/g; touch /root-file", [
        { dest: "/a", output: 1 },
        { dest: "/b", source: start, selector: "/sub", output: 2 },
        { dest: "/c", source: start },
      ]);
      return edge(digest, index);
    };
    expect(await read(session, outputs(1), "/f")).toBe("a\n");
    expect(await read(session, outputs(2), "/sub/f")).toBe("new\n");
    const tree = load(session, outputs(2));
    expect((await tree.readDir("/sub")).map(({ path }) => path)).toEqual(["f", "g"]);
    expect((await tree.stat("/sub")).mode & 0o7777).toBe(0o750);
    const root = load(session, outputs(0));
    expect((await root.readDir("/", "root*")).map(({ path }) => path)).toEqual(["root-file"]);
    // nothing of the mounts is left in the root
    expect((await root.readDir("/")).map(({ path }) => path)).not.toContain("b");
    await using again = await t.open();
    expect(await read(again, outputs(2), "/sub/g")).toBe("more\n");
    expect(again.events.some((event) => event.kind === "log")).toBe(false);
  });

  test("parts of trees of several layers are mounted without the rest, with deletions and opaque directories", async () => {
    await using session = await t.open();
    const layered = (graph: Graph) => {
      const one = sh(graph, "mkdir -p /d/e /d/gone /x; echo 1 > /d/e/one; echo 1 > /d/both; echo 1 > /d/e/deleted; ln -s d/e /link");
      const two = sh(graph, "echo 2 > /d/e/two; echo 2 > /d/both; rm /d/e/deleted; rm -r /d/gone", [], {}, one);
      return sh(graph, "rm -r /x; mkdir /x; echo 3 > /x/three", [], {}, two);
    };
    const seen = await read(
      session,
      (graph) => {
        const source = layered(graph);
        const script = "cd /m; ls e > /out; cat both >> /out; ls /l /x >> /out; cat /one >> /out; echo w > /w/both; cat /w/both >> /out";
        return sh(graph, script, [
          { dest: "/m", source, selector: "/d", readonly: true },
          { dest: "/l", source, selector: "/link", readonly: true },
          { dest: "/x", source, selector: "/x", readonly: true },
          { dest: "/one", source, selector: "/d/e/one", readonly: true },
          { dest: "/w", source, selector: "/d" },
        ]);
      },
      "/out",
    );
    expect(seen).toBe("one\ntwo\n2\n/l:\none\ntwo\n\n/x:\nthree\n1\nw\n");
    expect(await read(session, layered, "/d/both")).toBe("2\n");
  });

  test("secrets as files and variables; those that are missing are an error unless they are optional", async () => {
    const secret = (ID: string, optional: boolean, dest = "/run/secrets/s") => ({
      dest,
      mountType: MountType.SECRET,
      secretOpt: { ID, uid: 3, gid: 4, mode: 0o440, optional },
    });
    const host = { secret: async (id: string) => (id === "s" ? Buffer.from("hush") : undefined) };
    await using session = await t.open({}, host);
    const make = (graph: Graph) =>
      sh(
        graph,
        'cat /run/secrets/s > /seen; echo "$TOKEN" >> /seen; ls -n /run/secrets/s >> /seen; ls /run/o >> /seen 2>&1 || true',
        [secret("s", false), secret("absent", true, "/run/o")],
        {
          secretenv: [
            { ID: "s", name: "TOKEN" },
            { ID: "absent", name: "NONE", optional: true },
          ],
        },
      );
    const seen = await read(session, make, "/seen");
    expect(seen).toStartWith("hushhush\n-r--r-----");
    expect(seen).toContain(" 3        4 ");
    expect((await load(session, make).readDir("/")).map(({ path }) => path)).not.toContain("run");
    await expect(load(session, (graph) => sh(graph, "true", [secret("absent", false)])).evaluate()).rejects.toThrow(
      "secret absent: not found",
    );
    await using door = await t.open();
    await expect(load(door, (graph) => sh(graph, "true 2", [secret("s", false)])).evaluate()).rejects.toThrow("BuildKit session");
    await load(door, (graph) => sh(graph, "true 3", [secret("s", true)])).evaluate();
    // not a byte of it stays
    const files = existsSync(t.host.runDir) ? readdirSync(t.host.runDir, { recursive: true, encoding: "utf8" }) : [];
    expect(files.filter((name) => name.includes("secret"))).toEqual([]);
  });

  test("an ssh agent's socket", async () => {
    const path = join(t.dir, "agent.sock");
    const server = createServer((socket) => socket.end("agent"));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    let released = 0;
    const host = { ssh: async (id: string) => (id === "default" ? { path, release: async () => void released++ } : undefined) };
    const mount = (ID: string) => ({ dest: "/agent", mountType: MountType.SSH, SSHOpt: { ID, mode: 0o600 } });
    await using session = await t.open({}, host);
    await load(session, (graph) => sh(graph, "test -S /agent", [mount("")])).evaluate();
    expect(released).toBe(1);
    await expect(load(session, (graph) => sh(graph, "true ssh", [mount("other")])).evaluate()).rejects.toThrow('no SSH key "other"');
    server.close();
  });

  test("cache mounts: shared, with a beginning, locked for one at a time, private for each", async () => {
    await using session = await t.open({ noCache: true });
    const cache = (ID: string, sharing = 0, more: Partial<MountInit> = {}) => ({
      dest: "/c",
      mountType: MountType.CACHE,
      cacheOpt: { ID, sharing },
      ...more,
    });
    await load(session, (graph) => sh(graph, "echo kept > /c/f", [cache("one")])).evaluate();
    expect(await read(session, (graph) => sh(graph, "cat /c/f > /o", [cache("one")]), "/o")).toBe("kept\n");
    const seen = await read(
      session,
      (graph) => {
        const source = edge(graph.add(fileOp(undefined, [{ mkdir: { path: "/cache", mode: 0o700 } }, mkfile("/cache/b", "begin")])));
        return sh(graph, "cat /c/b > /o; ls /c >> /o; ls -ld /c >> /o", [cache("two", 0, { source, selector: "/cache" })]);
      },
      "/o",
    );
    expect(seen).toStartWith("beginb\ndrwx------");
    const both = (sharing: number, id: string) =>
      Promise.all(
        [1, 2].map((n) =>
          read(
            session,
            (graph) =>
              sh(graph, `: ${n}; if mkdir /c/busy; then sleep 0.2; rmdir /c/busy; echo ok > /o; else echo met > /o; fi`, [
                cache(id, sharing),
              ]),
            "/o",
          ),
        ),
      );
    expect(await both(2, "locked")).toEqual(["ok\n", "ok\n"]);
    expect(await both(1, "private")).toEqual(["ok\n", "ok\n"]);
    expect((await both(0, "shared")).sort()).toEqual(["met\n", "ok\n"]);
    const kinds = (await t.builder.usage()).filter(({ kind }) => kind === "exec.cachemount");
    expect(kinds.length).toBeGreaterThanOrEqual(5);
    expect((await t.builder.reclaim({ filter: ({ kind }) => kind === "exec.cachemount" })).records.length).toBe(kinds.length);
  });

  test("tmpfs sizes, exit codes that count as right, names of hosts", async () => {
    await using session = await t.open();
    const size = { dest: "/t", mountType: MountType.TMPFS, TmpfsOpt: { size: 1n << 20n } };
    const made = load(session, (graph) =>
      sh(graph, "dd if=/dev/zero of=/t/f bs=1k count=2000 2>/dev/null; exit 3", [size], {
        meta: {
          args: ["/bin/sh", "-c", "cat /t/none; cat > /t/f < /bin/busybox; test $(cat /t/f | wc -c) -le 1048576; exit 3"],
          env: ["PATH=/bin"],
          cwd: "/",
          validExitCodes: [3],
          hostname: "h",
          extraHosts: [{ Host: "x", IP: "1.2.3.4" }],
        },
      }),
    );
    await made.evaluate();
    expect(t.steps.at(-1)).toMatchObject({ hostname: "h", extraHosts: [{ Host: "x", IP: "1.2.3.4" }], network: "none" });
    await expect(load(session, (graph) => sh(graph, "exit 4")).evaluate()).rejects.toThrow("returned a non-zero code: 4");
  });

  test("what a step may not have is refused", async () => {
    await using session = await t.open();
    await expect(load(session, (graph) => sh(graph, "true", [], { network: NetMode.HOST })).evaluate()).rejects.toThrow(
      "network.host is not allowed",
    );
    const insecure = (graph: Graph) => sh(graph, "true insecure", [], { security: SecurityMode.INSECURE });
    await expect(load(session, insecure).evaluate()).rejects.toThrow("security.insecure is not allowed");
    await using granted = await t.open({ entitlements: new Set(["security.insecure"]) });
    await load(granted, insecure).evaluate();
    expect(t.steps.at(-1)?.insecure).toBe(true);
    const device = { cdiDevices: [{ name: "vendor.com/gpu=0" }] };
    await expect(load(session, (graph) => sh(graph, "true", [], device)).evaluate()).rejects.toThrow("CDI devices");
  });

  test("a client's directory is a root file system, too", async () => {
    const directory = t.files({ "etc/x": "y" });
    mkdirSync(join(directory, "bin"));
    writeFileSync(join(directory, "bin/busybox"), readFileSync(busybox!), { mode: 0o755 });
    await using session = await t.open({}, contextHost(directory));
    const make = (graph: Graph) =>
      edge(
        graph.add(
          execOp({ meta: { args: ["/bin/busybox", "touch", "/made"], env: [], cwd: "/" }, network: NetMode.NONE }, [
            { dest: "/", source: edge(graph.add(sourceOp("local://context"))), output: 0 },
          ]),
        ),
      );
    const ref = load(session, make);
    expect((await ref.readDir("/")).map(({ path }) => path)).toEqual(["bin", "etc", "made"]);
    expect(existsSync(join(directory, "made"))).toBe(false);
  });

  test("nothing is left", async () => {
    expect(await leftOf(t)).toEqual([]);
  });
});
