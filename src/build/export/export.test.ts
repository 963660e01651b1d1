// Exports: images, archives, files; provenance, compression, reproducibility.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { busybox, busyboxLayer, programs } from "../../containerd/harness.ts";
import { edge, type Graph } from "../graph/llb.ts";
import { leftOf, load, mkfile, resultOf, sh, sink, startBuilder, type TestBuilder, text } from "../harness.ts";
import { fileOp } from "../harness-operations.ts";
import type { Result } from "../session.ts";

// The machine may have other things to do.
setDefaultTimeout(30_000);

describe.skipIf(process.getuid?.() !== 0 || !busybox)("exports (needs root and busybox)", () => {
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
    expect(statement.predicate.invocation.parameters.args).toEqual({ "build-arg:A": "1" });
    expect(statement.predicate.invocation.configSource).toEqual({ entryPoint: "Dockerfile" });
    expect(statement.predicate.buildConfig.llbDefinition.length).toBe(3);
    if (programs("skopeo").length > 0) execFileSync("skopeo", ["inspect", "--config", `oci:${place}:1`], { stdio: "pipe" });
  });

  test("what a scanner wrote becomes attestations of the image it is about", async () => {
    await using session = await t.open();
    const written = { _type: "x", predicateType: "https://spdx.dev/Document", predicate: { name: "sbom" }, subject: [] };
    const bundle = load(session, (graph) => edge(graph.add(fileOp(undefined, [mkfile("/sbom.spdx.json", JSON.stringify(written))]))));
    const result = resultOf(load(session, (graph) => sh(graph, "echo attested > /x")));
    const metadata = new Map([["sbom-core", Buffer.from("sbom")]]);
    result.attestations.set("linux/amd64", [{ kind: "bundle", ref: bundle, path: "/", metadata, predicateType: "", subjects: [] }]);
    const out = sink();
    await session.export(result, { type: "oci", attrs: { name: "x:1" } }, out);
    const place = untar(out.bytes());
    const blob = (digest: string) => JSON.parse(readFileSync(join(place, "blobs", digest.replace(":", "/")), "utf8"));
    const index = blob(JSON.parse(readFileSync(join(place, "index.json"), "utf8")).manifests[0].digest);
    const [layer] = blob(index.manifests[1].digest).layers;
    expect(layer.annotations).toEqual({ "in-toto.io/predicate-type": "https://spdx.dev/Document" });
    const subject = [{ name: "pkg:docker/x@1?platform=linux%2Famd64", digest: { sha256: index.manifests[0].digest.slice(7) } }];
    expect(blob(layer.digest)).toMatchObject({ predicate: { name: "sbom" }, subject });
    const found: string[] = [];
    await session.export(
      result,
      { type: "local", attrs: { "attestation-prefix": "a-" } },
      {
        async tree(tree) {
          for await (const { path } of tree.entries()) found.push(path);
          const said = JSON.parse(text(Buffer.concat(await Array.fromAsync(await tree.open("a-sbom.spdx.json")))));
          expect(said.subject.map(({ name }: { name: string }) => name)).toContain("x");
        },
      },
    );
    expect(found).toContain("a-sbom.spdx.json");
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
    const steps = (graph: Graph) =>
      sh(graph, "mkdir /d; echo x > /d/f; ln -s f /d/l", [], {}, sh(graph, "echo y > /y; touch -d '1999-01-01 00:00:00' /y"));
    const make = async (builder: TestBuilder) => {
      await using session = await builder.open({ epoch });
      const ref = load(session, steps);
      const answer = await session.export(resultOf(ref), { type: "oci", attrs: { name: "x:1" } }, sink());
      return { digest: answer["containerimage.digest"] };
    };
    const one = await make(t);
    await using other = await startBuilder(busyboxLayer());
    const two = await make(other);
    expect(two.digest).toBe(one.digest!);
    // Another time is another image, but no step is run for it.
    await using later = await t.open({ epoch: epoch + 1 });
    const again = load(later, steps);
    const answer = await later.export(resultOf(again), { type: "oci", attrs: { name: "x:1" } }, sink());
    expect(answer["containerimage.digest"]).not.toBe(one.digest!);
    expect(
      later.events.some(
        (event) => event.kind === "vertex" && event.completed !== undefined && !event.cached && event.name.startsWith("/bin/sh"),
      ),
    ).toBe(false);
  });

  test("nothing is left", async () => {
    expect(await leftOf(t)).toEqual([]);
  });
});
