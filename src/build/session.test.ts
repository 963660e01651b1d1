// Builds of LLB, with the real kernel: definitions from the wire, references, mounts, several outputs, merges, exports.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { PassThrough, type Writable } from "node:stream";
import { create, toBinary } from "@bufbuild/protobuf";
import { busybox, busyboxLayer, programs } from "../containerd/harness.ts";
import { DefinitionSchema, MountSchema, MountType, NetMode, OpSchema, SecurityMode } from "../gen/pb_pb.ts";
import { digestOf, files } from "../oci/index.ts";
import { type Edge, edge, type Graph } from "./graph/llb.ts";
import { load, startBuilder, type TestBuilder } from "./harness.ts";
import { diffOp, execOp, fileOp, type MountInit, mergeOp, sourceOp } from "./harness-operations.ts";
import type { BuildHost } from "./host.ts";
import type { BuildSession, Result } from "./session.ts";

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("utf8");
const base = (graph: Graph) => edge(graph.add(sourceOp("docker-image://base")));
const sh = (graph: Graph, script: string, mounts: MountInit[] = [], more: object = {}, source: Edge | undefined = base(graph)) =>
  edge(
    graph.add(
      execOp({ meta: { args: ["/bin/sh", "-c", script], env: ["PATH=/bin"], cwd: "/" }, network: NetMode.NONE, ...more }, [
        { dest: "/", source, output: 0 },
        ...mounts,
      ]),
    ),
  );
const mkfile = (path: string, data: string, mode = 0o644) => ({ mkfile: { path, mode, data: Buffer.from(data) } });
const resultOf = (ref: Result["ref"], config: object = {}): Result => ({
  ref,
  refs: new Map(),
  metadata: new Map([["containerimage.config", Buffer.from(JSON.stringify({ architecture: "amd64", os: "linux", config, history: [] }))]]),
  attestations: new Map(),
});

describe.skipIf(process.getuid?.() !== 0 || !busybox)("builds of LLB (needs root and busybox)", () => {
  let t: TestBuilder;
  beforeAll(async () => {
    t = await startBuilder(busyboxLayer());
  });
  afterAll(() => t[Symbol.asyncDispose]());
  const contextHost = (directory: string): Partial<BuildHost> => ({
    localSource: async () => ({ directory, release: async () => {} }),
  });
  const read = async (session: BuildSession, make: (graph: Graph) => Edge, path: string) => text(await load(session, make).readFile(path));

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
    expect(existsSync(t.host.runDir) ? readdirSync(t.host.runDir) : []).toEqual([]);
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

  test("file actions: all fields of copy, mkdir, mkfile, rm, symlink", async () => {
    const directory = t.files({ "a/b/c.txt": "c", "a/b/d.md": "d", "a/e.txt": "e", f: "f" });
    linkSync(join(directory, "f"), join(directory, "a/hard"));
    linkSync(join(directory, "f"), join(directory, "a/b/hard"));
    await using session = await t.open({}, contextHost(directory));
    const local = (graph: Graph) => edge(graph.add(sourceOp("local://context")));
    const listing = async (make: (graph: Graph) => Edge): Promise<string[]> => {
      const found: string[] = [];
      await load(session, make).withTree(async (tree) => {
        for await (const { path, mode, uid, gid, linkname } of tree.entries())
          found.push(`${path} ${(mode & 0o7777).toString(8)} ${uid}:${gid}${linkname ? ` ${linkname}` : ""}`);
      });
      return found;
    };
    const copy = (action: object) => (graph: Graph) => edge(graph.add(fileOp(undefined, [{ copy: action as never, from: local(graph) }])));
    const owner = { user: { user: { case: "byID", value: 7 } }, group: { user: { case: "byID", value: 8 } } };
    expect(
      await listing(copy({ src: "/a", dest: "/x/", dirCopyContents: true, createDestPath: true, owner, modeStr: "u=rwX,go=" })),
    ).toEqual([
      "x 755 7:8",
      "x/b 700 7:8",
      "x/b/c.txt 600 7:8",
      "x/b/d.md 600 7:8",
      "x/b/hard 600 7:8",
      "x/e.txt 600 7:8",
      "x/hard 600 7:8 x/b/hard",
    ]);
    expect(await listing(copy({ src: "/a", dest: "/y", createDestPath: true, includePatterns: ["b/*.md"] }))).toEqual([
      "y 755 0:0",
      "y/b 755 0:0",
      "y/b/d.md 644 0:0",
    ]);
    expect(await listing(copy({ src: "/", dest: "/", dirCopyContents: true, excludePatterns: ["a/b", "**/hard"] }))).toEqual([
      "a 755 0:0",
      "a/e.txt 644 0:0",
      "f 644 0:0",
    ]);
    expect(await listing(copy({ src: "/a/*.txt", dest: "/z/", allowWildcard: true, createDestPath: true, mode: 0o600 }))).toEqual([
      "z 755 0:0",
      "z/e.txt 600 0:0",
    ]);
    await expect(listing(copy({ src: "/nope*", dest: "/", allowWildcard: true }))).rejects.toThrow("stat /nope*: file does not exist");
    await expect(listing(copy({ src: "/f", dest: "/no/dir/f" }))).rejects.toThrow("no such file or directory");
    await expect(listing(copy({ src: "/../../../etc/passwd", dest: "/p" }))).rejects.toThrow("file does not exist");
    const timed = load(session, copy({ src: "/f", dest: "/f", timestamp: 5_000_000_007n }));
    expect((await timed.stat("/f")).mtime).toBe(5_000_000_007n);
    const actions = await listing((graph) =>
      edge(
        graph.add(
          fileOp(undefined, [
            { mkdir: { path: "/m/n", mode: 0o700, makeParents: true } },
            mkfile("/m/n/file", "text", 0o640),
            { symlink: { oldpath: "n/file", newpath: "/m/link" } },
            mkfile("/m/n/gone.1", ""),
            mkfile("/m/n/gone.2", ""),
            { rm: { path: "/m/n/gone.*", allowWildcard: true } },
            { rm: { path: "/absent", allowNotFound: true } },
          ]),
        ),
      ),
    );
    expect(actions).toEqual(["m 755 0:0", "m/link 777 0:0 n/file", "m/n 700 0:0", "m/n/file 640 0:0"]);
    await expect(listing((graph) => edge(graph.add(fileOp(undefined, [{ rm: { path: "/absent" } }]))))).rejects.toThrow("no such file");
    await expect(listing((graph) => edge(graph.add(fileOp(undefined, [{ mkdir: { path: "/a/b", mode: 0o755 } }]))))).rejects.toThrow(
      "no such file",
    );
    const replaced = (alwaysReplaceExistingDestPaths: boolean) => (graph: Graph) => {
      const before = edge(graph.add(fileOp(undefined, [{ mkdir: { path: "/f", mode: 0o755 } }, mkfile("/f/in", "x")])));
      const from = local(graph);
      return edge(
        graph.add(
          fileOp(before, [
            { copy: { src: "/", dest: "/", dirCopyContents: true, includePatterns: ["f"], alwaysReplaceExistingDestPaths }, from },
          ]),
        ),
      );
    };
    expect(await listing(replaced(true))).toEqual(["f 644 0:0"]);
    await expect(listing(replaced(false))).rejects.toThrow("cannot copy to directory");
  });

  test("file operations with several outputs, and actions that take from actions", async () => {
    await using session = await t.open();
    const op = (index: number) => (graph: Graph) => {
      const action = (input: number, secondaryInput: number, output: number, what: object) => ({
        input: BigInt(input),
        secondaryInput: BigInt(secondaryInput),
        output: BigInt(output),
        action: what,
      });
      const write = (path: string, data: string) => ({
        case: "mkfile",
        value: { path, mode: 0o644, data: Buffer.from(data), timestamp: -1n },
      });
      const actions = [
        action(-1, -1, 0, write("/one", "1")),
        action(-1, -1, -1, write("/two", "2")),
        action(1, 0, 1, { case: "copy", value: { src: "/one", dest: "/from", mode: -1, timestamp: -1n } }),
      ];
      return edge(graph.add({ op: { case: "file", value: { actions } } } as never), index);
    };
    expect((await load(session, op(0)).readDir("/")).map(({ path }) => path)).toEqual(["one"]);
    expect((await load(session, op(1)).readDir("/")).map(({ path }) => path)).toEqual(["from", "two"]);
  });

  test("merges join layers; differences are layers; deletions count", async () => {
    await using session = await t.open();
    const merged = (graph: Graph) => {
      const add = edge(graph.add(fileOp(undefined, [{ mkdir: { path: "/d", mode: 0o755 } }, mkfile("/d/a", "a")])));
      const more = edge(
        graph.add(fileOp(undefined, [{ mkdir: { path: "/d", mode: 0o755 } }, mkfile("/d/b", "b"), mkfile("/d/a", "other")])),
      );
      return edge(graph.add(mergeOp([base(graph), add, more])));
    };
    const ref = load(session, merged);
    expect((await ref.readDir("/d")).map(({ path }) => path)).toEqual(["a", "b"]);
    expect(text(await ref.readFile("/d/a"))).toBe("other");
    expect(await read(session, (graph) => sh(graph, "ls /d > /o", [], {}, merged(graph)), "/o")).toBe("a\nb\n");
    const changed = (graph: Graph) => {
      const before = merged(graph);
      const after = sh(graph, "rm /d/a; echo c > /d/c", [], {}, before);
      return edge(graph.add(diffOp(before, after)));
    };
    const onto = load(session, (graph) => edge(graph.add(mergeOp([merged(graph), changed(graph)]))));
    expect((await onto.readDir("/d")).map(({ path }) => path)).toEqual(["b", "c"]);
    const apart = load(session, (graph) => {
      const left = edge(graph.add(fileOp(undefined, [mkfile("/same", "x"), mkfile("/left", "l")])));
      const right = edge(graph.add(fileOp(undefined, [mkfile("/right", "r")])));
      return edge(graph.add(diffOp(left, right)));
    });
    expect(text(await apart.readFile("/right"))).toBe("r");
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

  test.skipIf(programs("git").length === 0)("git: branches, tags, commits, subdirectories, checksums, over HTTP", async () => {
    const work = mkdtempSync(join(t.dir, "git-"));
    const git = (...args: string[]) =>
      execFileSync("git", ["-c", "user.name=n", "-c", "user.email=e", ...args], {
        cwd: work,
        encoding: "utf8",
        env: { ...process.env, HOME: work, GIT_CONFIG_GLOBAL: "/dev/null" },
      }).trim();
    git("init", "-q", "-b", "main");
    mkdirSync(join(work, "sub"));
    writeFileSync(join(work, "sub/f"), "one");
    git("add", ".");
    git("commit", "-qm", "one");
    const first = git("rev-parse", "HEAD");
    git("tag", "-am", "t", "v1");
    writeFileSync(join(work, "sub/f"), "two");
    git("commit", "-qam", "two");
    git("update-server-info");
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      async fetch(request) {
        const url = new URL(request.url);
        if (request.headers.get("authorization") !== "basic token" && url.pathname.startsWith("/private"))
          return new Response("", { status: 401 });
        const child = Bun.spawn(["git", "http-backend"], {
          env: {
            PATH: process.env.PATH ?? "",
            GIT_PROJECT_ROOT: work,
            GIT_HTTP_EXPORT_ALL: "1",
            PATH_INFO: url.pathname.replace(/^\/(private|repo)\.git/, "/.git"),
            QUERY_STRING: url.search.slice(1),
            REQUEST_METHOD: request.method,
            CONTENT_TYPE: request.headers.get("content-type") ?? "",
            HTTP_CONTENT_ENCODING: request.headers.get("content-encoding") ?? "",
            GIT_PROTOCOL: request.headers.get("git-protocol") ?? "",
            GIT_CONFIG_COUNT: "2",
            GIT_CONFIG_KEY_0: "safe.directory",
            GIT_CONFIG_VALUE_0: "*",
            GIT_CONFIG_KEY_1: "uploadpack.allowAnySHA1InWant",
            GIT_CONFIG_VALUE_1: "true",
          },
          stdin: await request.arrayBuffer().then((body) => new Uint8Array(body)),
          stdout: "pipe",
        });
        const out = Buffer.from(await new Response(child.stdout).arrayBuffer());
        const end = out.indexOf("\r\n\r\n");
        const headers = new Headers();
        let status = 200;
        for (const line of out.subarray(0, end).toString().split("\r\n")) {
          const [name = "", value = ""] = line.split(/: (.*)/s);
          if (name === "Status") status = Number.parseInt(value, 10);
          else if (name) headers.set(name, value);
        }
        return new Response(out.subarray(end + 4), { status, headers });
      },
    });
    try {
      const remote = `http://127.0.0.1:${server.port}/repo.git`;
      const source =
        (fragment: string, attrs: Record<string, string> = {}) =>
        (graph: Graph) =>
          edge(graph.add(sourceOp(`git://127.0.0.1/repo.git${fragment}`, { "git.fullurl": remote, ...attrs })));
      await using session = await t.open({}, { secret: async (id) => (id === "auth" ? Buffer.from("basic token") : undefined) });
      expect(await read(session, source(""), "/sub/f")).toBe("two");
      expect(await read(session, source("#v1"), "/sub/f")).toBe("one");
      expect(await read(session, source("#main:sub"), "/f")).toBe("two");
      expect(await read(session, source(`#${first}`), "/sub/f")).toBe("one");
      expect((await load(session, source("")).readDir("/")).map(({ path }) => path)).toEqual(["sub"]);
      const kept = load(session, source("#main", { "git.keepgitdir": "true", "git.checksum": git("rev-parse", "HEAD") }));
      expect((await kept.readDir("/")).map(({ path }) => path)).toEqual([".git", "sub"]);
      await expect(load(session, source("#v1", { "git.checksum": "abcd1234" })).evaluate()).rejects.toThrow(
        "expected checksum to match abcd1234",
      );
      await expect(load(session, source("#nope")).evaluate()).rejects.toThrow("does not contain ref nope");
      await expect(load(session, source("#--upload-pack=x")).evaluate()).rejects.toThrow("invalid git ref");
      const secret = `http://127.0.0.1:${server.port}/private.git`;
      expect(await read(session, source("#main", { "git.fullurl": secret, "git.authheadersecret": "auth" }), "/sub/f")).toBe("two");
      await expect(load(session, source("#main", { "git.fullurl": secret })).evaluate()).rejects.toThrow("git ls-remote");
      for (const bad of ["file:///etc", "ext::sh -c id", "-x", "/etc"])
        await expect(load(session, source("", { "git.fullurl": bad })).evaluate()).rejects.toThrow(
          /only http, https, git and ssh|invalid git remote/,
        );
    } finally {
      await server.stop(true);
    }
    expect(readdirSync(t.host.dataDir).filter((name) => /^(git|checkout)-/.test(name))).toEqual([]);
  });

  test("addresses: names, modes, owners, checksums", async () => {
    let bodies = 0;
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch(request) {
        if (request.headers.get("if-none-match") === '"tag"') return new Response(null, { status: 304 });
        bodies++;
        return new Response("fetched", { headers: { etag: '"tag"', "last-modified": "Thu, 01 Jan 2015 00:00:00 GMT" } });
      },
    });
    try {
      const source = (attrs: Record<string, string>) => (graph: Graph) =>
        edge(graph.add(sourceOp(`http://127.0.0.1:${server.port}/dir/file.bin`, attrs)));
      await using session = await t.open();
      const ref = load(session, source({ "http.perm": "0755", "http.uid": "5", "http.gid": "6", "http.filename": "x" }));
      expect(await ref.stat("/x")).toMatchObject({
        uid: 5,
        gid: 6,
        mode: 0o100755,
        mtime: BigInt(Date.parse("2015-01-01T00:00:00Z")) * 1_000_000n,
      });
      expect(text(await load(session, source({ "http.checksum": digestOf("fetched") })).readFile("/file.bin"))).toBe("fetched");
      await expect(load(session, source({ "http.checksum": digestOf("other") })).evaluate()).rejects.toThrow("digest mismatch");
      await expect(load(session, source({ "http.filename": "../x" })).evaluate()).rejects.toThrow("invalid http.filename");
      const got = (graph: Graph) =>
        edge(graph.add(fileOp(undefined, [{ copy: { src: "/file.bin", dest: "/f" }, from: source({})(graph) }])));
      expect(await read(session, got, "/f")).toBe("fetched");
      const before = bodies;
      await using again = await t.open();
      expect(await read(again, got, "/f")).toBe("fetched");
      // the server said that nothing is new, and so nothing was sent
      expect(bodies).toBe(before);
    } finally {
      await server.stop(true);
    }
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

  function sink() {
    const stream = new PassThrough();
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    return { stream: async (): Promise<Writable> => stream, bytes: () => Buffer.concat(chunks) };
  }
  const untar = (bytes: Buffer): string => {
    const place = mkdtempSync(join(t.dir, "tar-"));
    execFileSync("tar", ["-x", "-C", place], { input: bytes });
    return place;
  };

  test("an image: config, history that fits the layers, a digest in the answer", async () => {
    await using session = await t.open();
    const ref = load(session, (graph) => sh(graph, "true; : no change", [], {}, sh(graph, "echo x > /x")));
    const history = [{ created_by: "base" }, { created_by: "one" }, { created_by: "two" }];
    const result = resultOf(ref);
    result.metadata.set(
      "containerimage.config",
      Buffer.from(JSON.stringify({ architecture: "amd64", os: "linux", config: { Cmd: ["x"] }, history })),
    );
    let target = "";
    const answer = await session.export(
      result,
      { type: "image", attrs: { name: "a:1,b:2" } },
      {
        async image(image) {
          expect(image.names).toEqual(["a:1", "b:2"]);
          target = image.target.digest;
          const { data } = (await Array.fromAsync(t.host.manager.content.read({ digest: image.configDigest! })))[0]!;
          const config = JSON.parse(text(data));
          expect(config).toMatchObject({ config: { Cmd: ["x"] }, rootfs: { type: "layers" } });
          expect(config.rootfs.diff_ids).toHaveLength(2);
          expect(config.history.map((entry: { empty_layer?: boolean }) => entry.empty_layer ?? false)).toEqual([false, false, true]);
        },
      },
    );
    expect(answer).toMatchObject({ "containerimage.digest": target, "image.name": "a:1,b:2" });
    await using again = await t.open();
    const second = await again.export(
      resultOf(load(again, (graph) => sh(graph, "true; : no change", [], {}, sh(graph, "echo x > /x")))),
      { type: "image", attrs: {} },
      { image: async () => {} },
    );
    const third = await again.export(
      resultOf(load(again, (graph) => sh(graph, "true; : no change", [], {}, sh(graph, "echo x > /x")))),
      { type: "image", attrs: {} },
      { image: async () => {} },
    );
    expect(third["containerimage.digest"]).toBe(second["containerimage.digest"]!);
  });

  test.each([
    ["gzip", "+gzip"],
    ["zstd", "+zstd"],
    ["uncompressed", ".tar"],
  ])("an OCI archive with %s, provenance and annotations, which skopeo reads", async (compression, suffix) => {
    await using session = await t.open({
      request: { frontend: "dockerfile.v0", attrs: { "attest:provenance": "mode=max", filename: "Dockerfile", "build-arg:A": "1" } },
    });
    const ref = load(session, (graph) => sh(graph, "echo archive > /x"));
    const out = sink();
    const attrs = { name: "x:1", compression, "force-compression": "true", "annotation.a.b": "c", "annotation-index.i": "j" };
    const answer = await session.export(resultOf(ref), { type: "oci", attrs }, out);
    const place = untar(out.bytes());
    const blob = (digest: string) => JSON.parse(readFileSync(join(place, "blobs", digest.replace(":", "/")), "utf8"));
    const top = JSON.parse(readFileSync(join(place, "index.json"), "utf8"));
    expect(top.manifests[0].annotations["org.opencontainers.image.ref.name"]).toBe("1");
    expect(top.manifests[0].digest).toBe(answer["containerimage.digest"]);
    const index = blob(top.manifests[0].digest);
    expect(index.annotations).toEqual({ i: "j" });
    const manifest = blob(index.manifests[0].digest);
    expect(manifest.annotations).toEqual({ "a.b": "c" });
    for (const layer of manifest.layers) expect(layer.mediaType).toEndWith(suffix);
    expect(index.manifests[1].annotations).toEqual({
      "vnd.docker.reference.digest": index.manifests[0].digest,
      "vnd.docker.reference.type": "attestation-manifest",
    });
    const attested = blob(index.manifests[1].digest);
    const statement = blob(attested.layers[0].digest);
    expect(statement).toMatchObject({ _type: "https://in-toto.io/Statement/v0.1", predicateType: "https://slsa.dev/provenance/v0.2" });
    expect(statement.subject[0].name).toBe("pkg:docker/x@1?platform=linux%2Famd64");
    expect(statement.predicate.materials[0].uri).toBe("pkg:docker/base@latest?platform=linux%2Famd64");
    expect(statement.predicate.invocation.parameters.args).toEqual({ filename: "Dockerfile", "build-arg:A": "1" });
    expect(statement.predicate.buildConfig.llbDefinition.length).toBe(2);
    if (programs("skopeo").length > 0) execFileSync("skopeo", ["inspect", "--config", `oci:${place}:1`], { stdio: "pipe" });
  });

  test("a docker archive has a manifest.json; tar=false gives a directory", async () => {
    await using session = await t.open();
    const ref = load(session, (graph) => sh(graph, "echo archive > /x"));
    const out = sink();
    await session.export(resultOf(ref), { type: "docker", attrs: { name: "localhost/x:1" } }, out);
    const place = untar(out.bytes());
    expect(JSON.parse(readFileSync(join(place, "manifest.json"), "utf8"))[0].RepoTags).toEqual(["localhost/x:1"]);
    const names: string[] = [];
    await session.export(
      resultOf(ref),
      { type: "oci", attrs: { tar: "false" } },
      {
        async tree(tree) {
          for await (const { path } of tree.entries()) names.push(path);
        },
      },
    );
    expect(names.slice(0, 2)).toEqual(["blobs", "blobs/sha256"]);
    expect(names.slice(-2)).toEqual(["index.json", "oci-layout"]);
  });

  test("files: a tar, and a directory for each of several platforms", async () => {
    await using session = await t.open({ epoch: 1_000_000 });
    const tree = (data: string) => (graph: Graph) =>
      edge(
        graph.add(
          fileOp(undefined, [{ mkdir: { path: "/d", mode: 0o755 } }, mkfile("/d/f", data), { symlink: { oldpath: "d", newpath: "/l" } }]),
        ),
      );
    const out = sink();
    await session.export(resultOf(load(session, tree("x"))), { type: "tar", attrs: {} }, out);
    const place = untar(out.bytes());
    expect(readFileSync(join(place, "l/f"), "utf8")).toBe("x");
    expect(statSync(join(place, "d/f")).mtimeMs).toBe(1_000_000_000);
    const result: Result = {
      ref: undefined,
      refs: new Map([
        ["linux/amd64", load(session, tree("amd"))],
        ["linux/arm64", load(session, tree("arm"))],
      ]),
      metadata: new Map([
        [
          "refs.platforms",
          Buffer.from(
            JSON.stringify({
              Platforms: ["amd64", "arm64"].map((architecture) => ({
                ID: `linux/${architecture}`,
                Platform: { os: "linux", architecture },
              })),
            }),
          ),
        ],
      ]),
      attestations: new Map(),
    };
    const found: string[] = [];
    await session.export(
      result,
      { type: "local", attrs: {} },
      {
        async tree(files) {
          for await (const { path } of files.entries()) found.push(path);
          expect(text(Buffer.concat(await Array.fromAsync(await files.open("linux_arm64/d/f"))))).toBe("arm");
        },
      },
    );
    expect(found).toEqual([
      "linux_amd64",
      "linux_amd64/d",
      "linux_amd64/d/f",
      "linux_amd64/l",
      "linux_arm64",
      "linux_arm64/d",
      "linux_arm64/d/f",
      "linux_arm64/l",
    ]);
    let platforms: unknown;
    await session.export(
      result,
      { type: "image", attrs: {} },
      {
        async image(image) {
          platforms = image.platforms;
          expect(image.configDigest).toBeUndefined();
        },
      },
    );
    expect(platforms).toEqual([
      { os: "linux", architecture: "amd64" },
      { os: "linux", architecture: "arm64" },
    ]);
    await expect(session.export(result, { type: "nope", attrs: {} }, {})).rejects.toThrow("exports of the type nope");
  });

  test("with SOURCE_DATE_EPOCH two builders make the same image, to the byte", async () => {
    const epoch = 1_600_000_000;
    const make = async (builder: TestBuilder) => {
      await using session = await builder.open({ epoch });
      const ref = load(session, (graph) =>
        sh(graph, "mkdir /d; echo x > /d/f; ln -s f /d/l", [], {}, sh(graph, "echo y > /y; touch -d '1999-01-01 00:00:00' /y")),
      );
      const times = { f: (await ref.stat("/d/f")).mtime, y: (await ref.stat("/y")).mtime };
      const answer = await session.export(resultOf(ref), { type: "oci", attrs: { name: "x:1" } }, sink());
      return { times, digest: answer["containerimage.digest"] };
    };
    const one = await make(t);
    await using other = await startBuilder(busyboxLayer());
    const two = await make(other);
    expect(two.digest).toBe(one.digest!);
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

  test("an OCI layout of a client is a source", async () => {
    await using session = await t.open();
    const out = sink();
    const answer = await session.export(
      resultOf(load(session, (graph) => sh(graph, "echo layout > /from-layout"))),
      { type: "oci", attrs: {} },
      out,
    );
    const directory = untar(out.bytes());
    const digest = answer["containerimage.digest"]!;
    await using other = await startBuilder(busyboxLayer());
    const asked: string[] = [];
    const host: Partial<BuildHost> = {
      async ociLayout(store, wanted) {
        asked.push(store, wanted);
        return { directory, release: async () => {} };
      },
    };
    await using second = await other.open({}, host);
    const source = (graph: Graph) => edge(graph.add(sourceOp(`oci-layout://name@${digest}`, { "oci.store": "given" })));
    expect(await read(second, (graph) => sh(graph, "cat /from-layout > /o", [], {}, source(graph)), "/o")).toBe("layout\n");
    expect(asked).toEqual(["given", digest]);
    const absent = (graph: Graph) => edge(graph.add(sourceOp(`oci-layout://name@${digestOf("absent")}`)));
    await expect(load(second, absent).evaluate()).rejects.toThrow("has no blob");
    await expect(load(second, (graph) => edge(graph.add(sourceOp("oci-layout://name")))).evaluate()).rejects.toThrow("a digest is needed");
    await expect(load(second, (graph) => edge(graph.add(sourceOp("s3://x")))).evaluate()).rejects.toThrow("sources of the kind s3");
  });

  test("file capabilities are copied, and count", async () => {
    const directory = t.files({ program: "x" });
    const make = (graph: Graph) => {
      const from = edge(graph.add(sourceOp("local://context")));
      return edge(graph.add(fileOp(undefined, [{ copy: { src: "/program", dest: "/copied" }, from }])));
    };
    const seen = async () => {
      await using session = await t.open({}, contextHost(directory));
      const found: [string, string][] = [];
      await load(session, make).withTree(async (tree) => {
        for await (const { xattrs } of tree.entries())
          for (const [name, value] of Object.entries(xattrs)) found.push([name, Buffer.from(value).toString("hex")]);
      });
      return found;
    };
    expect(await seen()).toEqual([]);
    // cap_net_bind_service, permitted and effective (linux/capability.h, struct vfs_cap_data)
    const capability = "0100000200040000000000000000000000000000";
    const fd = openSync(join(directory, "program"), "r");
    files.setXattr(fd, "security.capability", Buffer.from(capability, "hex").toString("latin1"));
    closeSync(fd);
    expect(await seen()).toEqual([["security.capability", capability]]);
  });

  test("nothing is left of sessions", async () => {
    const { snapshots } = t.host.manager;
    const names: string[] = [];
    for await (const { info } of snapshots.list({ snapshotter: "overlayfs" })) names.push(...info.map(({ name }) => name));
    expect(names.filter((name) => name.startsWith("build-"))).toEqual([]);
    expect(readdirSync(t.host.dataDir).filter((name) => name !== "mounts")).toEqual([]);
    expect(readdirSync(t.host.runDir)).toEqual([]);
    expect(readFileSync("/proc/self/mounts", "utf8")).not.toContain(t.dir);
  });
});
