// What comes into a build from outside: git, addresses, OCI layouts.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { busybox, busyboxLayer, programs } from "../../containerd/harness.ts";
import { digestOf } from "../../oci/index.ts";
import { edge, type Graph } from "../graph/llb.ts";
import { leftOf, load, read, resultOf, sh, sink, startBuilder, type TestBuilder, text } from "../harness.ts";
import { gitAnswer } from "../harness-git.ts";
import { fileOp, sourceOp } from "../harness-operations.ts";
import type { BuildHost } from "../host.ts";

// The machine may have other things to do.
setDefaultTimeout(30_000);

describe.skipIf(process.getuid?.() !== 0 || !busybox)("sources (needs root and busybox)", () => {
  let t: TestBuilder;
  beforeAll(async () => {
    t = await startBuilder(busyboxLayer());
  });
  afterAll(() => t[Symbol.asyncDispose]());

  const untar = (bytes: Buffer): string => {
    const place = mkdtempSync(join(t.dir, "tar-"));
    execFileSync("tar", ["-x", "-C", place], { input: bytes });
    return place;
  };

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
        return gitAnswer(work, url.pathname.replace(/^\/(private|repo)\.git/, "/.git"), request);
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

  test("nothing is left", async () => {
    expect(await leftOf(t)).toEqual([]);
  });
});
