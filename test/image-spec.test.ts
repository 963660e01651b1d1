// Everything that we write as an image, by what the OCI image specification says, and by the programs of others: built, committed, imported, pulled, saved, exported,
// pushed.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lacks, sh, startEngine, type TestEngine } from "./support/engine.ts";
import { checkConfig, checkIndex, checkLayout, checkManifest } from "./support/image-spec-checks.ts";
import { startRegistry, type TestRegistry } from "./support/registry.ts";

describe.skipIf(lacks("docker", "docker-registry", "skopeo", "umoci"))("OCI image specification 1.1", () => {
  let engine: TestEngine;
  let registry: TestRegistry;
  const dir = mkdtempSync(join(tmpdir(), "jubako-image-spec-"));
  const names = ["classic:1", "native:1", "committed:1", "imported:1", "empty:1"];

  const must = (result: { status: number; stdout: string; stderr: string }) => {
    if (result.status !== 0) throw new Error(result.stderr);
    return result.stdout;
  };

  beforeAll(async () => {
    [engine, registry] = await Promise.all([startEngine(), startRegistry()]);
    const context = join(dir, "context");
    mkdirSync(context);
    writeFileSync(join(context, "file"), "x");
    const all = `FROM busybox AS base
RUN echo one >/one && ln /one /two
LABEL a=b c="d e"
ENV A=1 B="two words"
EXPOSE 80 53/udp
VOLUME /data
USER nobody
WORKDIR /work
HEALTHCHECK CMD true
ONBUILD RUN true
STOPSIGNAL SIGINT
SHELL ["/bin/sh", "-ec"]
COPY file /file
ENTRYPOINT ["sh"]
CMD ["-c", "true"]
`;
    writeFileSync(join(context, "Dockerfile"), all);
    writeFileSync(join(context, "scratch"), "FROM scratch\nARG TARGETARCH\nCOPY file /file\nLABEL arch=$TARGETARCH\n");
    writeFileSync(join(context, "empty"), "FROM scratch\nLABEL nothing=inside\n");
    must(engine.dockerWith({ env: { DOCKER_BUILDKIT: "0" } }, "build", "-q", "-t", "classic:1", context));
    must(engine.jubako("build", "-q", "-t", "native:1", context));
    must(engine.jubako("build", "-q", "-t", "empty:1", "-f", join(context, "empty"), context));
    must(engine.docker("run", "--name", "changed", "-u", "0", "classic:1", "-c", "echo more >/tmp/more; rm -f /two"));
    must(engine.docker("commit", "-a", "someone", "-m", "said", "-c", "ENV C=3", "changed", "committed:1"));
    must(engine.dockerWith({ input: sh(`tar -C ${context} -c .`).stdout }, "import", "-c", "CMD /file", "-", "imported:1"));
  }, 60_000);
  afterAll(async () => {
    await engine?.stop();
    await registry?.[Symbol.asyncDispose]();
    rmSync(dir, { recursive: true, force: true });
  });

  test("what is saved", async () => {
    const layout = join(dir, "saved");
    mkdirSync(layout);
    must(engine.docker("save", "-o", join(dir, "saved.tar"), ...names, "busybox"));
    must(sh(`tar -C ${layout} -xf ${dir}/saved.tar`));
    const { complaints, seen } = await checkLayout(layout);
    expect(complaints).toEqual([]);
    expect(seen["application/vnd.oci.image.manifest.v1+json"]).toBe(names.length + 1);
    for (const name of ["classic:1", "committed:1", "imported:1"]) {
      const oci = join(dir, name.replace(":", "-"));
      must(sh(`skopeo --insecure-policy copy -q docker-archive:${dir}/saved.tar:${name} oci:${oci}:x`));
      must(sh(`umoci unpack --image ${oci}:x ${oci}-bundle`));
      expect(sh(`ls ${oci}-bundle/rootfs`).stdout).toContain("file");
    }
  }, 60_000);

  test("what is built for several platforms, with provenance", async () => {
    const layout = join(dir, "platforms");
    mkdirSync(layout);
    must(
      engine.jubako(
        ...[
          "build",
          "-q",
          "--platform",
          "linux/amd64,linux/arm64",
          "--provenance",
          "mode=max",
          "--output",
          `type=oci,dest=${dir}/platforms.tar`,
        ],
        ...["-f", join(dir, "context/scratch"), join(dir, "context")],
      ),
    );
    must(sh(`tar -C ${layout} -xf ${dir}/platforms.tar`));
    const { complaints, seen } = await checkLayout(layout);
    expect(complaints).toEqual([]);
    // two images, two attestations
    expect(seen["application/vnd.oci.image.manifest.v1+json"]).toBe(4);
  }, 60_000);

  test.skipIf(lacks("crane"))(
    "what is pushed, by crane and skopeo",
    async () => {
      for (const name of names) {
        const target = `${registry.address}/spec/${name}`;
        must(engine.docker("tag", name, target));
        must(engine.docker("push", "-q", target));
        if (name !== "empty:1") expect(must(sh(`crane validate --insecure --remote ${target}`))).toContain("PASS");
        const raw = must(sh(`skopeo inspect --raw --tls-verify=false docker://${target}`));
        const complaints: string[] = [];
        const manifest = JSON.parse(raw);
        checkManifest(manifest, name, complaints);
        for (const layer of manifest.layers) expect(layer.mediaType).toBe("application/vnd.oci.image.layer.v1.tar+gzip");
        const config = must(sh(`skopeo inspect --config --raw --tls-verify=false docker://${target}`));
        checkConfig(JSON.parse(config), `${name}.config`, complaints);
        expect(complaints).toEqual([]);
      }
    },
    60_000,
  );

  test.skipIf(lacks("podman"))(
    "what is pushed, by podman",
    () => {
      const podman = `podman --root ${dir}/podman --runroot ${dir}/run --storage-driver vfs`;
      for (const name of ["classic:1", "committed:1", "imported:1"]) {
        const target = `${registry.address}/podman/${name}`;
        must(engine.docker("tag", name, target));
        must(engine.docker("push", "-q", target));
        must(sh(`${podman} pull -q --tls-verify=false ${target}`));
        expect(must(sh(`${podman} inspect -f '{{.Id}}' ${target}`)).trim()).toBe(
          must(engine.docker("inspect", "-f", "{{.Id}}", name))
            .trim()
            .replace("sha256:", ""),
        );
      }
    },
    30_000,
  );

  test("the checks find what is wrong", () => {
    const complaints: string[] = [];
    const descriptor = { mediaType: "a/b", digest: `sha256:${"0".repeat(64)}`, size: 1 };
    checkManifest(
      { schemaVersion: 2, config: { ...descriptor, size: -1 }, layers: [{ ...descriptor, mediaType: "none" }] },
      "m",
      complaints,
    );
    checkIndex({ schemaVersion: 1, manifests: [{ ...descriptor, platform: { os: "linux" } }] }, "i", complaints);
    checkConfig(
      { os: "linux", architecture: "amd64", created: "now", rootfs: { type: "layers", diff_ids: [] }, history: [{}] },
      "c",
      complaints,
    );
    expect(complaints.map((one) => one.split(":")[0])).toEqual([
      ...["m.mediaType", "m.config.size", "m.layers[0].mediaType"],
      ...["i.schemaVersion", "i.manifests[0].platform.architecture", "c.created", "c.history"],
    ]);
  });
});
