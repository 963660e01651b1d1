// Dockerfiles for what the language can do, one feature after another (test/dockerfiles/features), on busybox: each is built by jubako's CLI and engine, and its
// result runs. Where Debian's dockerd is there, it builds the same files, by the classic protocol or by its BuildKit, and the trees and configs must be equal:
// names, kinds, modes, owners, contents, links. Those that projects write are in dockerfile-projects.test.ts.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startPlainDockerd } from "./support/dockerd.ts";
import { bin, lacks, type Output, root, sh, startEngine, type TestEngine, which } from "./support/engine.ts";
import { imageTree } from "./support/image-tree.ts";
import { runSettings } from "./support/run-settings.ts";

interface Check {
  /** What of dockerd must make the same: its classic builder, or its BuildKit; absent: it can't build this. */
  compare?: "classic" | "buildkit";
  args?: string[];
  /** Shell lines that complete the context. */
  prepare?: string;
  /** A Dockerfile that is built first, as NAME-base. */
  first?: string;
  secret?: string;
  /** What is run, instead of the image's own command. */
  run?: string[];
  output: string;
  /** Places of cache mounts: dockerd 20.10 leaves empty directories there, BuildKit since 2022 and we don't. */
  stubs?: string[];
}

const place = join(root, "test/dockerfiles/features");
const checks = readdirSync(place).map((name) => ({
  name,
  check: JSON.parse(readFileSync(join(place, name, "check.json"), "utf8")) as Check,
}));

/** Runs jubako's CLI against any engine. */
function jubako(host: string, classic: boolean, ...args: string[]): Output {
  const result = spawnSync(bin("jubako"), ["-H", host, ...args], {
    encoding: "utf8",
    timeout: 60_000,
    env: { ...process.env, DOCKER_BUILDKIT: classic ? "0" : "1" },
  });
  return { status: result.status ?? 255, stdout: result.stdout ?? "", stderr: `${result.stderr ?? ""}${result.error ?? ""}` };
}

/** What of a config both engines must say alike. */
function configOf(host: string, image: string): Record<string, unknown> {
  const [inspected] = JSON.parse(sh(`docker -H ${host} image inspect ${image}`).stdout) as { Config: Record<string, unknown> }[];
  return runSettings(inspected!.Config);
}

describe.skipIf(lacks("docker", "busybox"))("Dockerfiles", () => {
  let engine: TestEngine;
  let dockerd: Awaited<ReturnType<typeof startPlainDockerd>> | undefined;
  const dir = mkdtempSync(join(tmpdir(), "jubako-dockerfiles-"));
  beforeAll(async () => {
    engine = await startEngine();
    if (which("dockerd")) dockerd = await startPlainDockerd();
    else console.log("skip: dockerd not installed: nothing to compare with");
  }, 60_000);
  afterAll(async () => {
    await engine?.stop();
    await dockerd?.stop();
    rmSync(dir, { recursive: true, force: true });
  }, 60_000);

  /** The context, complete. */
  function contextOf(name: string, check: Check): string {
    const context = join(dir, name);
    if (existsSync(context)) return context;
    cpSync(join(place, name), context, { recursive: true });
    if (check.prepare) {
      const prepared = sh(`cd ${context} && ${check.prepare}`);
      if (prepared.status !== 0) throw new Error(prepared.stderr);
    }
    return context;
  }

  function build(host: string, classic: boolean, name: string, check: Check, tag = name): void {
    const context = contextOf(name, check);
    const secret = join(dir, "secret");
    if (check.secret) writeFileSync(secret, check.secret);
    const args = [...(check.args ?? []), ...(check.secret ? ["--secret", `id=token,src=${secret}`] : [])];
    for (const [file, as] of [...(check.first ? [[check.first, `${name}-base`]] : []), ["Dockerfile", tag]]) {
      const result = jubako(host, classic, "build", "-t", as!, "-f", join(context, file!), "--network", "none", ...args, context);
      if (result.status !== 0) throw new Error(`build of ${name}: ${result.stdout}${result.stderr}`);
    }
  }

  for (const { name, check } of checks) {
    test(name, () => {
      build(engine.host, false, name, check);
      const ran = engine.docker("run", "--rm", name, ...(check.run ?? []));
      expect(ran.stdout).toBe(check.output);
    }, 60_000);
  }

  for (const { name, check } of checks) {
    const { compare } = check;
    if (!compare) continue;
    test(`${name}: as dockerd's ${compare} builder makes it`, async () => {
      if (!dockerd) return;
      const classic = compare === "classic";
      build(dockerd.host, classic, name, check);
      const tag = classic ? `${name}-classic` : name;
      build(engine.host, classic, name, check, tag);
      const [theirs, ours] = await Promise.all([imageTree(dockerd.host, name), imageTree(engine.host, tag)]);
      for (const path of Object.keys(theirs))
        if (check.stubs?.some((stub) => path === stub || path.startsWith(`${stub}/`))) delete theirs[path];
      expect(ours).toEqual(theirs);
      expect(configOf(engine.host, tag)).toEqual(configOf(dockerd.host, name));
      // Both of our doors make the same.
      if (classic) expect(await imageTree(engine.host, name)).toEqual(ours);
    }, 60_000);
  }
});
