// What is known of builds afterwards, by the real buildx: the metadata file, and a history that outlives the engine. One engine for the file.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { buildx, startBuildx, type TestBuildx } from "./support/buildx.ts";
import { lacks, until } from "./support/engine.ts";

setDefaultTimeout(60_000);

describe.skipIf(lacks("docker") || buildx === undefined)("build history", () => {
  let t: TestBuildx;
  beforeAll(async () => {
    t = await startBuildx();
  });
  afterAll(() => t?.engine.stop());

  const history = (...args: string[]) => t.docker("buildx", "history", ...args);
  const ids = () =>
    t
      .ok(history("ls", "--format", "{{.Ref}}"))
      .split("\n")
      .filter(Boolean)
      .map((ref) => ref.split("/").at(-1)!);

  test("the metadata file: provenance of every kind of step, the descriptor, the reference, warnings", () => {
    const dir = t.context({
      Dockerfile: `FROM busybox as base
RUN --mount=type=tmpfs,target=/t,size=1000000 --mount=type=cache,target=/c,id=size --mount=type=secret,id=s true
COPY --chown=3:4 f /f
COPY --chown=root f /g
WORKDIR /w
FROM base
`,
      f: "f",
    });
    const file = join(dir, "meta.json");
    const env = { ...t.env, BUILDX_METADATA_WARNINGS: "1", BUILDX_METADATA_PROVENANCE: "max" };
    for (const version of ["v0.2", "v1"]) {
      const args = [
        "--metadata-file",
        file,
        "--provenance",
        `mode=max,version=${version}`,
        "--build-arg",
        "A=1",
        "--secret",
        `id=s,src=${join(dir, "f")}`,
      ];
      t.ok(t.engine.dockerWith({ env, timeoutMs: 60_000 }, "buildx", "build", "-t", "told", ...args, dir));
      const meta = JSON.parse(readFileSync(file, "utf8"));
      expect(meta["buildx.build.ref"]).toMatch(/^default\/default\/\w+$/);
      expect(meta["containerimage.descriptor"].digest).toBe(meta["containerimage.digest"]);
      expect(meta["buildx.build.warnings"].length).toBe(1);
      const provenance = meta["buildx.build.provenance"];
      expect(provenance.invocation).toMatchObject({
        configSource: { entryPoint: "Dockerfile" },
        parameters: {
          frontend: "dockerfile.v0",
          args: { "build-arg:A": "1" },
          secrets: [{ id: "s", optional: true }],
          locals: [{ name: "context" }, { name: "dockerfile" }],
        },
      });
      expect(provenance.metadata.completeness).toEqual({ parameters: true, environment: true, materials: false });
      const { source } = provenance.metadata["https://mobyproject.org/buildkit@v1#metadata"];
      expect(Buffer.from(source.infos[0].data, "base64").toString()).toContain("FROM busybox as base");
      const copy = provenance.buildConfig.llbDefinition.find((step: { op: { Op: { file?: object } } }) => step.op.Op.file);
      expect(copy.op.Op.file.actions[0]).toMatchObject({ secondaryInput: 1, Action: { copy: { owner: { user: { User: { byId: 3 } } } } } });
    }
  });

  test("builds and what they said are there after the engine was killed", async () => {
    const dir = t.context({ Dockerfile: "FROM busybox\nRUN echo remembered\n" });
    t.ok(t.build(dir, "--no-cache", "--provenance", "mode=min", "-t", "kept"));
    const failing = t.context({ Dockerfile: "FROM busybox\nRUN echo broken; exit 7\n" });
    expect(t.build(failing).status).toBe(1);
    const [failed, done] = ids();
    // They are written once the client has its answer.
    const db = new DatabaseSync(join(t.engine.dir, "root/engine.db"), { readOnly: true });
    const written = db.prepare("SELECT count(*) AS n FROM build_history WHERE ref IN (?, ?)");
    await until("both are written", () => (written.get(failed!, done!) as { n: number }).n === 2);
    db.close();
    await t.engine.kill();
    await t.engine.start();
    expect(ids().slice(0, 2)).toEqual([failed!, done!]);
    expect(t.ok(history("logs", done!))).toContain("remembered");
    expect(t.ok(history("logs", failed!))).toContain("broken");
    expect(t.ok(history("inspect", failed!))).toContain("exit code: 7");
    const shown = JSON.parse(t.ok(history("inspect", done!, "--format", "json")));
    expect(shown).toMatchObject({ Status: "completed", NumCompletedSteps: shown.NumTotalSteps });
    expect(shown.Materials[0].URI).toBe("pkg:docker/busybox@latest?platform=linux%2Famd64");
    const attachment = history("inspect", "attachment", done!, "--type", "https://slsa.dev/provenance/v0.2");
    expect(JSON.parse(attachment.stdout).buildType).toBe("https://mobyproject.org/buildkit@v1");
    const bundle = join(dir, "build.dockerbuild");
    t.ok(history("export", "-o", bundle, done!));
    expect(statSync(bundle).size).toBeGreaterThan(1000);
    expect(t.ok(history("ls", "--filter", "status=error", "--format", "{{.Ref}}"))).not.toContain(done!);
    t.ok(history("rm", done!));
    expect(ids()).not.toContain(done!);
    t.ok(history("rm", "--all"));
    expect(ids()).toEqual([]);
    await t.engine.kill();
    await t.engine.start();
    expect(ids()).toEqual([]);
  });
});
