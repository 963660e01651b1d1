// File operations, merges and differences, with the real kernel.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { closeSync, linkSync, openSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { busybox, busyboxLayer } from "../../containerd/harness.ts";
import { files } from "../../oci/index.ts";
import { type Edge, edge, type Graph } from "../graph/llb.ts";
import { base, contextHost, leftOf, load, mkfile, read, sh, startBuilder, type TestBuilder, text } from "../harness.ts";
import { diffOp, fileOp, mergeOp, sourceOp } from "../harness-operations.ts";

describe.skipIf(process.getuid?.() !== 0 || !busybox)("files (needs root and busybox)", () => {
  let t: TestBuilder;
  beforeAll(async () => {
    t = await startBuilder(busyboxLayer());
  });
  afterAll(() => t[Symbol.asyncDispose]());

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
      // directories made on the way have a numeric mode, too, without its set-id bits, as in BuildKit
      "z 600 0:0",
      "z/e.txt 600 0:0",
    ]);
    expect(await listing(copy({ src: "/f", dest: "/y/z/f", createDestPath: true, mode: 0o2711 }))).toEqual([
      "y 711 0:0",
      "y/z 711 0:0",
      "y/z/f 2711 0:0",
    ]);
    utimesSync(join(directory, "a/b"), 1_000_000_000, 1_000_000_000);
    utimesSync(join(directory, "a"), 1_000_000_001, 1_000_000_001);
    const dated = load(session, copy({ src: "/a", dest: "/x/y", createDestPath: true, dirCopyContents: true }));
    expect(await Promise.all(["/x/y", "/x/y/b"].map(async (path) => (await dated.stat(path)).mtime / 1_000_000_000n))).toEqual([
      1_000_000_001n,
      1_000_000_000n,
    ]);
    const picked = load(
      session,
      copy({ src: "/", dest: "/p", createDestPath: true, dirCopyContents: true, includePatterns: ["a/b/c.txt"] }),
    );
    expect((await picked.stat("/p/a/b")).mtime).toBeGreaterThan(1_600_000_000_000_000_000n);
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
    expect(actions).toEqual(["m 700 0:0", "m/link 777 0:0 n/file", "m/n 700 0:0", "m/n/file 640 0:0"]);
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

  test("nothing is left", async () => {
    expect(await leftOf(t)).toEqual([]);
  });
});
