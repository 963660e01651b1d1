// The build cache as docker's users see it: --cache-from of the classic protocol, what prune and df say.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { lacks, startEngine, type TestEngine } from "./support/engine.ts";

describe.skipIf(lacks("docker"))("the cache of docker build", () => {
  let engine: TestEngine;
  beforeAll(async () => {
    engine = await startEngine();
  });
  afterAll(() => engine?.stop());

  function build(name: string, dockerfile: string, ...args: string[]): string {
    const dir = join(engine.dir, name);
    mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, "Dockerfile"), dockerfile);
    writeFileSync(join(dir, "file"), "content");
    const { status, stdout, stderr } = engine.dockerWith(
      { env: { DOCKER_BUILDKIT: "0" }, timeoutMs: 60_000 },
      "build",
      "-t",
      name,
      ...args,
      dir,
    );
    if (status !== 0) throw new Error(`${stdout}\n${stderr}\n${engine.log().slice(-2000)}`);
    return stdout;
  }
  const cached = (out: string) => out.match(/Using cache/g)?.length ?? 0;

  test("--cache-from: an image of an earlier build is a cache, another is none", () => {
    const dockerfile = "FROM busybox\nRUN cat /proc/uptime > /when\nCOPY file /file\nRUN cat /when /file > /all\n";
    build("earlier", dockerfile);
    engine.docker("builder", "prune", "-af");
    expect(cached(build("without", dockerfile))).toBe(0);
    engine.docker("builder", "prune", "-af");
    expect(cached(build("with", dockerfile, "--cache-from", "absent", "--cache-from", "busybox", "--cache-from", "earlier"))).toBe(3);
    const layers = (name: string) => engine.docker("image", "inspect", "-f", "{{json .RootFS.Layers}}", name).stdout;
    expect(layers("with")).toBe(layers("earlier"));
    expect(layers("without")).not.toBe(layers("earlier"));
    expect(engine.docker("run", "--rm", "with", "cat", "/file").stdout).toBe("content");
  });

  test("the cache of a saved and loaded image is still one", () => {
    const dockerfile = "FROM busybox\nRUN cat /proc/uptime > /when2\n";
    build("saved", dockerfile);
    engine.docker("save", "-o", join(engine.dir, "saved.tar"), "saved");
    engine.docker("rmi", "-f", "saved");
    engine.docker("builder", "prune", "-af");
    engine.docker("load", "-i", join(engine.dir, "saved.tar"));
    expect(cached(build("again", dockerfile, "--cache-from", "saved"))).toBe(1);
  });

  test("df shows records and mount caches; prune takes filters and limits", () => {
    engine.docker("builder", "prune", "-af");
    build("pruned", "FROM busybox\nRUN --mount=type=cache,id=kept,target=/c echo 12345 > /c/f\nRUN echo small > /a\n");
    const items = () =>
      JSON.parse(engine.docker("system", "df", "-v", "--format", "{{json .BuildCache}}").stdout) as Record<string, string>[];
    const kinds = () =>
      items()
        .map(({ CacheType }) => CacheType)
        .sort();
    expect(kinds()).toEqual(["exec.cachemount", "regular", "regular"]);
    expect(engine.docker("builder", "prune", "-af", "--filter", "until=24h").stdout).toContain("Total reclaimed space: 0B");
    expect(kinds()).toHaveLength(3);
    engine.docker("builder", "prune", "-af", "--keep-storage", "1gb");
    expect(kinds()).toHaveLength(3);
    engine.docker("builder", "prune", "-af", "--filter", "type=exec.cachemount");
    expect(kinds()).toEqual(["regular", "regular"]);
    expect(engine.docker("builder", "prune", "-af", "--filter", "nope=1").status).not.toBe(0);
    engine.docker("builder", "prune", "-af");
    expect(kinds()).toEqual([]);
  });
});
