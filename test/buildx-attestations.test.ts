// What is attested of builds, by the real buildx: SBOMs of a scanner image, and provenance. One engine and one registry for the file.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { DefinitionSchema, OpSchema } from "../src/gen/pb_pb.ts";
import { digestOf } from "../src/oci/index.ts";
import { buildctl, buildx, startBuildx, type TestBuildx } from "./support/buildx.ts";
import { lacks, sh } from "./support/engine.ts";
import { startRegistry, type TestRegistry } from "./support/registry.ts";

setDefaultTimeout(60_000);

/** Lists the files that it was given as an SPDX document for each tree, and says what it found around it. */
const SCANNER = `#!/bin/sh
set -e
env | grep ^BUILDKIT_SCAN | sort
touch /tmp/there
touch "$BUILDKIT_SCAN_SOURCE/x" 2>/dev/null && { echo "the source can be written to"; exit 1; }
for dir in "$BUILDKIT_SCAN_SOURCE" \${BUILDKIT_SCAN_SOURCE_EXTRAS:+$BUILDKIT_SCAN_SOURCE_EXTRAS/*}; do
  name=$(basename "$dir")
  files=$(cd "$dir" && find . -type f | sort | sed 's,^./\\(.*\\)$,{"fileName":"\\1"\\,"SPDXID":"SPDXRef-\\1"},' | tr '\\n' ,)
  printf '{"_type":"https://in-toto.io/Statement/v0.1","subject":[],"predicateType":"https://spdx.dev/Document","predicate":{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT","name":"%s","creationInfo":{"created":"2024-01-01T00:00:00Z","creators":["Tool: ours"]},"files":[%s]}}' "$name" "\${files%,}" >"$BUILDKIT_SCAN_DESTINATION/$name.spdx.json"
done
`;

interface Spdx {
  name: string;
  creationInfo: { creators: string[] };
  files: { fileName: string; comment?: string }[];
}

describe.skipIf(lacks("docker", "docker-registry", "skopeo") || buildx === undefined)("attestations", () => {
  let t: TestBuildx;
  let registry: TestRegistry;
  let scanner: string;

  beforeAll(async () => {
    [t, registry] = await Promise.all([startBuildx(), startRegistry()]);
    scanner = `${registry.address}/scanner`;
    const Dockerfile = 'FROM busybox\nCOPY --chmod=755 scan /scan\nENTRYPOINT ["/scan"]\n';
    t.ok(t.build(t.context({ Dockerfile, scan: SCANNER }), "-t", scanner, "--push"));
    t.ok(t.docker("rmi", scanner));
  });
  afterAll(async () => {
    await t?.engine.stop();
    await registry?.[Symbol.asyncDispose]();
  });

  const raw = (name: string) => JSON.parse(t.docker("buildx", "imagetools", "inspect", "--raw", name).stdout);
  const sbomOf = (name: string) => {
    const shown = t.ok(t.docker("buildx", "imagetools", "inspect", name, "--format", "{{json .SBOM}}"));
    return JSON.parse(shown) as { SPDX: Spdx; AdditionalSPDXs?: Spdx[] };
  };
  const blob = (name: string, digest: string) => JSON.parse(sh(`wget -qO- http://${registry.address}/v2/${name}/blobs/${digest}`).stdout);

  test("an SBOM of the image, of the context and of a stage, beside the image", () => {
    const dir = t.context({
      Dockerfile: `ARG BUILDKIT_SBOM_SCAN_CONTEXT=true
FROM busybox AS pre
ARG BUILDKIT_SBOM_SCAN_STAGE=pre
RUN mkdir /d && echo pre > /d/pre
FROM scratch
COPY --from=pre /d /d
COPY f /f
`,
      f: "f",
      unwanted: "",
    });
    const name = `${registry.address}/scanned`;
    const said = t.ok(t.build(dir, "--attest", `type=sbom,generator=${scanner},depth=3`, "-t", name, "--push"));
    expect(said).toContain(`[linux/amd64] generating sbom using ${scanner}:latest`);
    for (const line of [
      "BUILDKIT_SCAN_DESTINATION=/run/out/",
      "BUILDKIT_SCAN_SOURCE=/run/src/core/sbom",
      "BUILDKIT_SCAN_SOURCE_EXTRAS=/run/src/extras",
      "BUILDKIT_SCAN_depth=3",
    ])
      expect(said).toContain(line);
    const index = raw(name);
    expect(index.mediaType).toBe("application/vnd.oci.image.index.v1+json");
    const [image, attestation] = index.manifests;
    expect(image.platform).toEqual({ architecture: "amd64", os: "linux" });
    expect(attestation).toMatchObject({
      platform: { architecture: "unknown", os: "unknown" },
      annotations: { "vnd.docker.reference.digest": image.digest, "vnd.docker.reference.type": "attestation-manifest" },
    });
    const { layers } = raw(`${name}@${attestation.digest}`);
    expect(layers.map((layer: { annotations: object }) => layer.annotations)).toEqual(
      Array(3).fill({ "in-toto.io/predicate-type": "https://spdx.dev/Document" }),
    );
    const subject = [
      {
        name: `pkg:docker/${encodeURIComponent(registry.address)}/scanned@latest?platform=linux%2Famd64`,
        digest: { sha256: image.digest.slice(7) },
      },
    ];
    expect(blob("scanned", layers[0].digest)).toMatchObject({ predicate: { name: "sbom" }, subject });
    // the image's own is the one that clients show; each of its files says which layer it is from
    const { SPDX, AdditionalSPDXs } = sbomOf(name);
    const [first, second] = raw(`${name}@${image.digest}`).layers;
    expect(SPDX.files.map(({ fileName, comment }) => [fileName, comment])).toEqual([
      ["d/pre", `layerID: ${first.digest}`],
      ["f", `layerID: ${second.digest}`],
    ]);
    expect(SPDX.creationInfo.creators[0]).toBe("Tool: ours");
    expect(AdditionalSPDXs?.map(({ name: each }) => each).sort()).toEqual(["sbom-context", "sbom-pre"]);
    expect(AdditionalSPDXs?.find((each) => each.name === "sbom-context")?.files).toEqual([{ fileName: "f", SPDXID: "SPDXRef-f" } as never]);
    // the second time it is not scanned again
    expect(t.ok(t.build(dir, "--sbom", `generator=${scanner},depth=3`, "-t", name, "--push"))).toMatch(
      /generating sbom using[^\n]*\n#\d+ CACHED/,
    );
  });

  test("for each of several platforms, and in files", () => {
    const dir = t.context({
      Dockerfile: `FROM scratch AS own
ARG TARGETARCH
COPY f-$TARGETARCH /$TARGETARCH
FROM scratch AS same
ARG TARGETARCH
COPY f-$TARGETARCH /f
`,
      "f-amd64": "a",
      "f-arm64": "b",
    });
    const sbom = ["--sbom", `generator=${scanner}`, "--platform", "linux/amd64,linux/arm64"];
    const name = `${registry.address}/many`;
    t.ok(t.build(dir, ...sbom, "-t", name, "--push"));
    expect(raw(name).manifests).toHaveLength(4);
    const out = join(dir, "out");
    t.ok(t.build(dir, ...sbom, "-o", out));
    expect(readdirSync(join(out, "linux_arm64")).sort()).toEqual(["f", "sbom.spdx.json"]);
    const statement = JSON.parse(readFileSync(join(out, "linux_arm64/sbom.spdx.json"), "utf8"));
    expect(statement.subject.map((each: { name: string }) => each.name)).toEqual(["f"]);
    const flat = (target: string) => [
      ...sbom,
      "-o",
      `type=local,dest=${out}2,platform-split=false,attestation-prefix=a-`,
      "--target",
      target,
    ];
    expect(t.build(dir, ...flat("same")).stderr).toMatch(
      /cannot overwrite f from linux\/(amd|arm)64 with linux\/(amd|arm)64 when split option is disabled/,
    );
    t.ok(t.build(dir, ...flat("own")));
    expect(readdirSync(`${out}2`).sort()).toEqual(["a-sbom.spdx.linux_amd64.json", "a-sbom.spdx.linux_arm64.json", "amd64", "arm64"]);
  });

  test.skipIf(!buildctl)("of what no frontend of ours made", () => {
    const mkfile = { path: "/g", mode: 0o644, data: Buffer.from("llb"), timestamp: -1n };
    const action = { input: -1n, secondaryInput: -1n, output: 0n, action: { case: "mkfile" as const, value: mkfile } };
    const file = toBinary(OpSchema, create(OpSchema, { op: { case: "file", value: { actions: [action] } } }));
    const last = toBinary(OpSchema, create(OpSchema, { inputs: [{ digest: digestOf(file) }] }));
    const out = join(t.engine.dir, "llb");
    const args = ["--addr", t.engine.host, "build", "--opt", `attest:sbom=generator=${scanner}`, "--output", `type=local,dest=${out}`];
    const input = toBinary(DefinitionSchema, create(DefinitionSchema, { def: [file, last] }));
    const built = spawnSync(buildctl!, args, { input, encoding: "utf8", timeout: 60_000 });
    expect(built.stderr).toContain("generating sbom using");
    expect(readdirSync(out).sort()).toEqual(["g", "sbom.spdx.json"]);
  });

  test("scanners that are not there, or fail, end the build", () => {
    const dir = t.context({ Dockerfile: "FROM scratch\nCOPY f /f\n", f: "" });
    const missing = t.build(dir, "--sbom", `generator=${registry.address}/no-such-scanner`);
    expect(missing.status).toBe(1);
    expect(missing.stderr).toContain(`failed to resolve source metadata for ${registry.address}/no-such-scanner:latest`);
    expect(t.build(dir, "--sbom", `generator=${registry.address}/UPPER`).stderr).toContain("failed to parse sbom generator");
    const wrong = `${registry.address}/wrong`;
    const CMD = `["sh", "-c", "echo nonsense > $BUILDKIT_SCAN_DESTINATION/x.json"]`;
    t.ok(t.build(t.context({ Dockerfile: `FROM busybox\nCMD ${CMD}\n` }), "-t", wrong));
    const bad = t.build(dir, "--sbom", `generator=${wrong}`, "-t", "bad");
    expect(bad.status).toBe(1);
    expect(bad.stderr).toContain("cannot decode in-toto statement");
  });
});
