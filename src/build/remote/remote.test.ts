// Caches that leave a builder and come into an empty one: its steps are cached there, and give the same files.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { busybox, busyboxLayer, programs } from "../../containerd/harness.ts";
import { openRepository } from "../../distribution/index.ts";
import { startRegistry } from "../../engine/images/harness.ts";
import { NetMode } from "../../gen/pb_pb.ts";
import { parseReference, withDefaultTag } from "../../oci/index.ts";
import { edge, type Graph } from "../graph/llb.ts";
import { load, startBuilder, type TestBuilder } from "../harness.ts";
import { execOp, fileOp, sourceOp } from "../harness-operations.ts";
import type { BuildHost } from "../host.ts";
import type { BuildSession, FileTree, Result } from "../session.ts";
import { parseCacheConfig, stackOf } from "./config.ts";

// The machine may have other things to do.
setDefaultTimeout(30_000);

const run = (graph: Graph, script: string, source = edge(graph.add(sourceOp("docker-image://base"))), output = 0) => {
  const meta = { args: ["/bin/sh", "-c", script], env: ["PATH=/bin"], cwd: "/" };
  const op = execOp({ meta, network: NetMode.NONE }, [
    { dest: "/", source, output: 0 },
    { dest: "/second", output: 1 },
  ]);
  return edge(graph.add(op), output);
};
/** A stage that only gives a file to another. */
const twoStages = (graph: Graph) => {
  const from = run(graph, "echo made > /made; echo other > /second/other");
  const final = edge(graph.add(fileOp(edge(graph.add(sourceOp("docker-image://base"))), [{ copy: { src: "/made", dest: "/got" }, from }])));
  return run(graph, "cat /got > /last", final);
};
const resultOf = (ref: Result["ref"]): Result => ({ ref, refs: new Map(), metadata: new Map(), attestations: new Map() });
const ran = (session: { events: { kind: string }[] }) => session.events.filter(({ kind }) => kind === "log").length;

async function write(tree: FileTree, directory: string): Promise<void> {
  for await (const { path, mode } of tree.entries()) {
    const place = join(directory, path);
    if ((mode & 0o170000) === 0o040000) mkdirSync(place, { recursive: true });
    else {
      mkdirSync(dirname(place), { recursive: true });
      writeFileSync(place, Buffer.concat(await Array.fromAsync(await tree.open(path))));
    }
  }
}

describe.skipIf(process.getuid?.() !== 0 || !busybox)("caches of other builders (needs root and busybox)", () => {
  let t: TestBuilder;
  const layer = busybox ? busyboxLayer() : Buffer.alloc(0);
  const noisy = (graph: Graph) => run(graph, "cat /last; echo loud", twoStages(graph));
  beforeAll(async () => {
    t = await startBuilder(layer);
  });
  afterAll(() => t[Symbol.asyncDispose]());

  /** Steps of the same build that an empty builder still has to run, by their vertices. */
  async function steps(session: BuildSession & { events: { kind: string }[] }): Promise<string[]> {
    const ref = load(session, noisy);
    expect(Buffer.from(await ref.readFile("/last")).toString()).toBe("made\n");
    return session.events.flatMap((event) => {
      const vertex = event as { kind: string; name?: string; cached?: boolean; completed?: number };
      return vertex.kind === "vertex" && vertex.completed !== undefined && !vertex.cached && vertex.name?.startsWith("/bin/sh")
        ? [vertex.name]
        : [];
    });
  }

  test("a directory: min has the result's own layers, max every step's, also of several outputs", async () => {
    for (const mode of ["min", "max"]) {
      const directory = join(t.dir, `cache-${mode}`);
      mkdirSync(directory);
      await using session = await t.open();
      const ref = load(session, noisy);
      await ref.evaluate();
      await load(session, (graph) => run(graph, "echo made > /made; echo other > /second/other", undefined, 1)).evaluate();
      const answer = await session.exportCache(
        resultOf(ref),
        { type: "local", attrs: { dest: "d", mode } },
        { tree: (tree) => write(tree, directory) },
      );
      const { digest } = JSON.parse(answer["cache.manifest"]!);
      await using other = await startBuilder(layer);
      const ociLayout = async (store: string) => {
        expect(store).toBe("local:d");
        return { directory, release: async () => {} };
      };
      await using fresh = await other.open({ cacheImports: [{ type: "local", attrs: { src: "d", digest } }] }, { ociLayout });
      // what the first stage made is part of no layer of the result
      expect((await steps(fresh)).length).toBe(mode === "min" ? 1 : 0);
      if (mode === "min") continue;
      const second = load(fresh, (graph) => run(graph, "echo made > /made; echo other > /second/other", undefined, 1));
      expect((await second.readDir("/")).map(({ path }) => path)).toEqual(["other"]);
      expect(ran(fresh)).toBe(0);
      // once its layers are here, it is a cache like our own
      await using again = await other.open();
      expect(await steps(again)).toEqual([]);
    }
  });

  test("a cache that is not there, or is not well-formed, does not end a build", async () => {
    const directory = join(t.dir, "broken");
    mkdirSync(join(directory, "blobs/sha256"), { recursive: true });
    const imports = [{ type: "local", attrs: { src: "d", digest: `sha256:${"0".repeat(64)}` } }];
    await using session = await t.open({ cacheImports: imports }, { ociLayout: async () => ({ directory, release: async () => {} }) });
    expect(session.events.some((event) => event.kind === "vertex" && event.error?.includes("no blob"))).toBe(true);
    await load(session, (graph) => run(graph, "true")).evaluate();
    await expect(t.open({ cacheImports: [{ type: "gha", attrs: {} }] })).rejects.toThrow("cache imports of the type gha");
    await expect(session.exportCache(resultOf(undefined), { type: "s3", attrs: {} }, {})).rejects.toThrow("cache exports of the type s3");
  });

  test("cycles and indexes that lead nowhere are no stacks", () => {
    const config = (parents: number[]) =>
      parseCacheConfig(Buffer.from(JSON.stringify({ layers: parents.map((parent) => ({ blob: "", parent })), records: [] })));
    expect(stackOf(config([-1, 0, 1]), 2)).toEqual([0, 1, 2]);
    expect(stackOf(config([1, 0]), 1)).toBeUndefined();
    expect(stackOf(config([0]), 0)).toBeUndefined();
    expect(stackOf(config([-1, 7]), 1)).toBeUndefined();
    expect(stackOf(config([-1]), 3)).toBeUndefined();
    for (const bad of ["[", '{"layers":3}', '{"layers":[{"blob":"x"}]}', '{"records":[{"digest":"nope"}]}', "null"])
      expect(() => parseCacheConfig(Buffer.from(bad))).toThrow("invalid cache config");
  });

  test.skipIf(programs("docker-registry").length === 0)("a registry: caches of their own in both forms, and within an image", async () => {
    const registry = await startRegistry(join(t.dir, "registry"));
    try {
      const repository: NonNullable<BuildHost["repository"]> = async (ref, { push }) =>
        openRepository(withDefaultTag(parseReference(ref)), { insecure: ["127.0.0.0/8"], mirrors: [] }, undefined, push ? "push" : "pull");
      for (const form of ["true", "false"]) {
        const ref = `${registry.host}/cache:${form}`;
        await using session = await t.open({}, { repository });
        const result = resultOf(load(session, noisy));
        await result.ref!.evaluate();
        await session.exportCache(
          result,
          { type: "registry", attrs: { ref, mode: "max", "image-manifest": form, compression: "zstd" } },
          {},
        );
        await using other = await startBuilder(layer);
        await using fresh = await other.open({ cacheImports: [{ type: "registry", attrs: { ref } }] }, { repository });
        expect(await steps(fresh)).toEqual([]);
      }
      const ref = `${registry.host}/image:1`;
      await using session = await t.open({}, { repository });
      const result = resultOf(load(session, noisy));
      await session.export(
        result,
        { type: "image", attrs: { name: ref, push: "true", "inline-cache": "true" } },
        {
          async image({ target }) {
            const { content } = t.host.manager;
            const read = async (digest: string) => Buffer.concat((await Array.fromAsync(content.read({ digest }))).map(({ data }) => data));
            const bytes = await read(target.digest);
            const { config, layers } = JSON.parse(bytes.toString());
            const to = await repository(ref, { insecure: true, push: true });
            for (const blob of [config, ...layers])
              await to.push(blob, async function* () {
                yield await read(blob.digest);
              });
            await to.pushManifest(target, bytes, "1");
          },
        },
      );
      await using other = await startBuilder(layer);
      await using fresh = await other.open({ cacheImports: [{ type: "registry", attrs: { ref } }] }, { repository });
      // the first stage is no part of the image
      expect((await steps(fresh)).length).toBe(1);
    } finally {
      registry.child.kill("SIGKILL");
    }
  });
});
