// What the image exporter's attributes do, by the real buildx with the engine's socket as a remote builder: buildx itself keeps some of them from the engine's
// own builder. One engine and one registry for the file.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { buildctl, buildx, startBuildx, type TestBuildx } from "./support/buildx.ts";
import { lacks, sh } from "./support/engine.ts";
import { startRegistry, type TestRegistry } from "./support/registry.ts";

setDefaultTimeout(60_000);

describe.skipIf(lacks("docker", "docker-registry", "skopeo") || buildx === undefined)("image outputs", () => {
  let t: TestBuildx;
  let registry: TestRegistry;
  let dir: string;

  beforeAll(async () => {
    [t, registry] = await Promise.all([startBuildx(), startRegistry()]);
    t.ok(t.docker("buildx", "create", "--name", "outputs", "--driver", "remote", t.engine.host));
    registry.push("base:1");
    dir = t.context({ Dockerfile: `FROM ${registry.address}/base:1\nRUN echo out > /o\n` });
  });
  afterAll(async () => {
    t?.docker("buildx", "rm", "-f", "outputs");
    await t?.engine.stop();
    await registry?.[Symbol.asyncDispose]();
  });

  const output = (attrs: string, ...more: string[]) => t.build(dir, "--builder", "outputs", "--output", `type=image,${attrs}`, ...more);
  const meta = () => JSON.parse(readFileSync(join(dir, "meta.json"), "utf8"));
  const metadata = ["--metadata-file"];
  const raw = (name: string) => JSON.parse(t.ok(t.docker("buildx", "imagetools", "inspect", "--raw", name)));
  const typesOf = (name: string) => raw(name).layers.map(({ mediaType }: { mediaType: string }) => mediaType.split(".").at(-1));
  const tagsOf = (name: string) => {
    const answer = sh(`wget -qO- http://${registry.address}/v2/${name}/tags/list`).stdout;
    return answer === "" ? [] : (JSON.parse(answer).tags ?? []);
  };

  test("push by digest: no tag comes to be, here or there", () => {
    const name = `${registry.address}/by-digest`;
    const said = t.ok(output(`name=${name},push-by-digest=true,push=true`, ...metadata, join(dir, "meta.json")));
    expect(said).toContain(`pushing manifest for ${name}`);
    const digest = meta()["containerimage.digest"];
    expect(raw(`${name}@${digest}`).layers).toHaveLength(2);
    expect(tagsOf("by-digest")).toEqual([]);
    expect(t.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", name).stdout).not.toContain(":latest");
    const tagged = output(`name=${name}:1,push-by-digest=true,push=true`);
    expect(tagged.stderr).toContain(`failed to push ${name}:1: can't push tagged ref ${name}:1 by digest`);
    // each is then a part of an index that is made of them
    t.ok(t.docker("buildx", "imagetools", "create", "-t", `${name}:all`, `${name}@${digest}`));
    expect(tagsOf("by-digest")).toEqual(["all"]);
  });

  test("names: canonical, dangling, none", () => {
    const name = `${registry.address}/names`;
    t.ok(output(`name=${name}:c,name-canonical=true`, ...metadata, join(dir, "meta.json")));
    const digest = meta()["containerimage.digest"];
    expect(t.docker("image", "inspect", "--format", "{{json .RepoDigests}}", `${name}:c`).stdout).toContain(`${name}@${digest}`);
    t.ok(output("dangling-name-prefix=left/over", ...metadata, join(dir, "meta.json")));
    expect(meta()["image.name"]).toBe(`left/over@${digest}`);
    t.ok(output(`name=${name}:pushed-only,push=true,store=false`));
    expect(tagsOf("names")).toEqual(["pushed-only"]);
    expect(t.docker("image", "inspect", `${name}:pushed-only`).status).toBe(1);
  });

  test("compression of layers, and of those that are compressed already", () => {
    const name = `${registry.address}/layers`;
    const cases = {
      "": ["tar+gzip", "tar+gzip"],
      ",compression=zstd": ["tar+gzip", "tar+zstd"],
      ",compression=zstd,force-compression=true,compression-level=1": ["tar+zstd", "tar+zstd"],
      ",compression=uncompressed,force-compression=true": ["tar", "tar"],
      ",oci-mediatypes=false": ["gzip", "gzip"],
    };
    for (const [attrs, types] of Object.entries(cases)) {
      t.ok(output(`name=${name},push=true${attrs}`));
      expect(typesOf(name)).toEqual(types);
    }
    for (const [attrs, error] of [
      ["compression=estargz", "compression type estargz is not supported: use gzip, zstd or uncompressed"],
      ["compression=lzma", "unsupported compression type lzma"],
      ["compression-level=x", "non-integer value x specified for compression-level"],
      ["push=maybe", 'non-bool value specified for push: strconv.ParseBool: parsing "maybe": invalid syntax'],
      ["unpack=true,rewrite-timestamp=true", 'exporter option "rewrite-timestamp" conflicts with "unpack"'],
    ]) {
      const refused = output(`name=${name},${attrs}`);
      expect(refused.stderr).toContain(error!);
      // before anything was built
      expect(refused.stderr).not.toContain("RUN echo");
    }
  });

  test("annotations of manifests, descriptors and indexes", () => {
    const name = `${registry.address}/annotated`;
    t.ok(output(`name=${name},push=true,annotation.a=1,annotation-manifest-descriptor.d=2`, ...metadata, join(dir, "meta.json")));
    expect(raw(name).annotations).toEqual({ a: "1" });
    const { mediaType, annotations, platform } = meta()["containerimage.descriptor"];
    expect({ mediaType, annotations, platform }).toEqual({
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      annotations: { d: "2" },
      platform: { os: "linux", architecture: "amd64" },
    });
    expect(output(`name=${name},annotation-index.i=3`).stderr).toContain("index annotations not supported for single platform export");
    expect(output(`name=${name},annotation-foo.i=3`).stderr).toContain("unrecognized annotation type foo");
    const two = ["--platform", "linux/amd64,linux/386"];
    const scratch = t.context({ Dockerfile: "FROM scratch\nCOPY Dockerfile /\n" });
    const attrs = "annotation-index.i=3,annotation[linux/386].p=4,annotation-manifest-descriptor[linux/amd64].q=5";
    const several = (more: string) =>
      t.build(scratch, "--builder", "outputs", ...two, "--output", `type=image,"name=${name},${name}:2",push=true,${more}`);
    t.ok(several(attrs));
    const index = raw(`${name}:2`);
    expect(index.annotations).toEqual({ i: "3" });
    expect(index.manifests.map((each: { annotations?: object }) => each.annotations)).toEqual([{ q: "5" }, undefined]);
    expect(index.manifests.map(({ digest }: { digest: string }) => raw(`${name}@${digest}`).annotations)).toEqual([undefined, { p: "4" }]);
    expect(raw(name)).toEqual(index);
    expect(several("annotation[linux/arm64].x=y").stderr).toContain("invalid annotation: no platform linux/arm64 found in source");
  });

  test("attestations as OCI artifacts", () => {
    const name = `${registry.address}/artifact`;
    t.ok(output(`name=${name},push=true,oci-artifact=true`, "--provenance", "mode=min"));
    const [image, attestation] = raw(name).manifests;
    expect(raw(`${name}@${attestation.digest}`)).toMatchObject({
      artifactType: "application/vnd.docker.attestation.manifest.v1+json",
      config: { mediaType: "application/vnd.oci.empty.v1+json", size: 2, data: "e30=" },
      subject: { digest: image.digest },
    });
  });

  test.skipIf(!buildctl)("buildctl pushes by digest", () => {
    const name = `${registry.address}/ctl`;
    const local = ["--frontend", "dockerfile.v0", "--local", `context=${dir}`, "--local", `dockerfile=${dir}`];
    const out = ["--output", `type=image,name=${name},push=true,push-by-digest=true`, "--metadata-file", join(dir, "ctl.json")];
    const built = spawnSync(buildctl!, ["--addr", t.engine.host, "build", ...local, ...out], { encoding: "utf8", timeout: 60_000 });
    expect(built.stderr).toContain(`pushing manifest for ${name}`);
    const { "containerimage.digest": digest } = JSON.parse(readFileSync(join(dir, "ctl.json"), "utf8"));
    expect(raw(`${name}@${digest}`).layers).toHaveLength(2);
  });
});
