// Base images come when a step wants their files, not before, by the real buildx: an engine that has never seen the base image takes what it needs from a cache in
// a registry.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { buildx, startBuildx, type TestBuildx } from "./support/buildx.ts";
import { lacks, sh } from "./support/engine.ts";
import { startRegistry, type TestRegistry } from "./support/registry.ts";

setDefaultTimeout(60_000);

describe.skipIf(lacks("docker", "docker-registry", "skopeo") || buildx === undefined)("base images", () => {
  let t: TestBuildx;
  let fresh: TestBuildx;
  let registry: TestRegistry;
  let base: string;

  beforeAll(async () => {
    [t, fresh, registry] = await Promise.all([startBuildx(), startBuildx({ image: false }), startRegistry()]);
    registry.push("base:1");
    base = `${registry.address}/base:1`;
  });
  afterAll(async () => {
    await Promise.all([t?.engine.stop(), fresh?.engine.stop()]);
    await registry?.[Symbol.asyncDispose]();
  });

  const images = () => fresh.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split("\n").filter(Boolean);
  /** Whether the fresh engine has any layer of the base image. */
  const hasLayer = () => {
    const [{ digest }] = JSON.parse(t.docker("buildx", "imagetools", "inspect", "--raw", base).stdout).layers;
    return sh(`find ${fresh.engine.dir}/root -name ${digest.slice(7)} | grep -q .`).status === 0;
  };

  test("a stage whose steps are all cached needs no base image", () => {
    const cache = `type=registry,ref=${registry.address}/cache`;
    const files = { Dockerfile: `FROM ${base} AS a\nRUN cat /proc/uptime > /a\nFROM scratch\nCOPY --from=a /a /b\n` };
    const made = join(t.engine.dir, "made");
    t.ok(t.build(t.context(files), "--cache-to", `${cache},mode=max`, "-o", made));
    const dir = fresh.context(files);
    const out = join(fresh.engine.dir, "out");
    const built = fresh.ok(fresh.build(dir, "--cache-from", cache, "-o", out));
    expect(built).toMatch(/RUN cat[^\n]*\n#\d+ CACHED/);
    expect(readFileSync(join(out, "b"), "utf8")).toBe(readFileSync(join(made, "b"), "utf8"));
    expect(images()).toEqual([]);
    expect(hasLayer()).toBe(false);
    // nor do questions about the Dockerfile
    expect(fresh.ok(fresh.docker("buildx", "build", "--call", "outline", dir))).not.toContain("ERROR");
    expect(hasLayer()).toBe(false);
  });

  test("a step that runs in it fetches it, under the step's own name, and gives it its tag", () => {
    const dir = fresh.context({ Dockerfile: `FROM ${base}\nRUN echo here > /h\n` });
    const built = fresh.ok(fresh.build(dir, "-t", "here"));
    const vertex = /#(\d+) \[1\/2\] FROM/.exec(built)![1];
    expect(built).toMatch(new RegExp(`#${vertex} [0-9a-f]{12} .*done`));
    expect(images().sort()).toEqual([base, "here:latest"]);
    expect(hasLayer()).toBe(true);
    expect(fresh.run("here", "cat", "/h")).toBe("here\n");
    expect(fresh.ok(fresh.build(dir, "--pull", "-t", "here"))).toMatch(/\[1\/2\] FROM[^\n]*\n#\d+ CACHED/);
  });

  test("what can't be had says so where it is wanted", () => {
    const dir = fresh.context({ Dockerfile: `FROM ${registry.address}/missing AS m\nFROM scratch\nCOPY --from=m /a /\n` });
    const failed = fresh.build(dir);
    expect(failed.status).toBe(1);
    expect(failed.stderr).toContain(`failed to resolve source metadata for ${registry.address}/missing:latest`);
    expect(failed.stderr).toContain(">>> FROM");
  });
});
