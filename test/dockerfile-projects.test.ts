// Dockerfiles as real projects write them (test/dockerfiles/projects), on base images made with debootstrap and served by a registry on loopback
// (test/bases). Each is built by jubako's CLI and engine and its result runs; then one of Docker's builders builds the same files, both results are pushed,
// and their layers and configs must be equal: kinds, modes, owners, contents, links, devices, attributes, and times where they are not those of the build.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BaseRegistry, baseImage, hasBase, makeBases, repository, startBaseRegistry } from "./bases/index.ts";
import { type Buildkitd, startBuildkitd } from "./support/buildkitd.ts";
import { startPlainDockerd } from "./support/dockerd.ts";
import { bin, lacks, type Output, root, run, sh, startEngine, type TestEngine, until } from "./support/engine.ts";
import { type PushedImage, pushedImage } from "./support/layer-tree.ts";
import { freePort } from "./support/registry.ts";
import { type Remote, serveRemote } from "./support/remote.ts";
import { runSettings } from "./support/run-settings.ts";

interface Check {
  /** The images of test/bases that it is built on; the first one is that of its last stage where it has one. */
  bases: string[];
  /** Whose result ours must equal: dockerd's classic builder, its BuildKit (20.10), or buildkitd. */
  peer: "classic" | "buildkit" | "buildkitd";
  args?: string[];
  /** Shell lines that complete the context. */
  prepare?: string;
  /** The apt repository is in the context, as "repository". */
  repository?: boolean;
  /**
   * Shell lines that complete the folder "remote", which is no part of the context but served: files/ and git repositories. The build argument REMOTE is
   * its address, ARCHIVE_SUM the digest of the archive in files/.
   */
  remote?: string;
  /** Another Dockerfile, built first; the build argument BASE names its image. */
  first?: string;
  /** Files whose content may differ, and why; the rest of them must not. */
  varies?: Record<string, string>;
  /** What the other builder makes otherwise, and why. */
  differs?: Record<string, string>;
  /** Places of cache mounts: BuildKit 20.10 leaves empty directories there, later ones and ours don't. */
  stubs?: string[];
  /** Options of `docker run`. */
  options?: string[];
  /** What is run instead of the image's own command. */
  run?: string[];
  output?: string;
  /** A server that runs as the image says: what it answers, and how it ends when it is stopped. */
  serves?: { port: number; path: string; body: string; exit: number };
}

const place = join(root, "test/dockerfiles/projects");
const only = process.env.JUBAKO_TEST_PROJECT;
const checks = readdirSync(place)
  .sort()
  .filter((name) => !only || only.split(",").includes(name))
  .map((name) => ({ name, check: JSON.parse(readFileSync(join(place, name, "check.json"), "utf8")) as Check }));

const timeless = (line: string | undefined) => line?.replace(/^(directory \d+ \d+:\d+) \S+/, "$1");

/** Leaves the times of directories out, and directories that differ in nothing else. */
function dropDirectoryTimes(changes: Record<string, string>, base: Record<string, string>): void {
  for (const [path, line] of Object.entries(changes)) {
    if (timeless(line) === timeless(base[path])) delete changes[path];
    else changes[path] = timeless(line)!;
  }
}

function must(what: string, { status, stdout, stderr }: Output): void {
  if (status !== 0) throw new Error(`${what}: ${stdout.slice(-4000)}${stderr.slice(-4000)}`);
}

const able = !lacks("docker", "busybox") && makeBases();
const has = (check: Check): boolean => check.bases.every(hasBase);
const withoutBuildkitd = lacks("buildkitd", "buildctl");
const withoutDockerd = lacks("dockerd");
const withoutPeer = ({ peer }: Check): boolean => (peer === "buildkitd" ? withoutBuildkitd : withoutDockerd);
describe.skipIf(!able)("Dockerfiles of projects", () => {
  let registry: BaseRegistry;
  let engine: TestEngine;
  let dockerd: Awaited<ReturnType<typeof startPlainDockerd>> | undefined;
  let buildkitd: Buildkitd | undefined;
  const dir = mkdtempSync(join(tmpdir(), "jubako-projects-"));
  const remotes = new Map<string, { server: Remote; sum: string }>();
  let over = false;
  const began = Math.floor(Date.now() / 1000);

  beforeAll(async () => {
    registry = await startBaseRegistry();
    const peers = new Set(checks.map(({ check }) => check.peer));
    [engine, dockerd, buildkitd] = await Promise.all([
      startEngine(),
      (peers.has("classic") || peers.has("buildkit")) && !withoutDockerd ? startPlainDockerd() : undefined,
      peers.has("buildkitd") && !withoutBuildkitd ? startBuildkitd(registry.address) : undefined,
    ]);
    startPeers();
  }, 60_000);
  afterAll(async () => {
    over = true;
    await Promise.all([engine?.stop(), dockerd?.stop(), buildkitd?.stop(), registry?.stop()]);
    await Promise.all(theirs.values());
    for (const { server } of remotes.values()) server.stop();
    rmSync(dir, { recursive: true, force: true });
  }, 120_000);

  /** The context, complete. */
  function contextOf(name: string, check: Check): string {
    const context = join(dir, name);
    if (existsSync(context)) return context;
    cpSync(join(place, name), context, { recursive: true });
    rmSync(join(context, "check.json"));
    if (check.repository) cpSync(repository, join(context, "repository"), { recursive: true });
    if (check.remote) {
      const served = join(dir, `${name}.remote`);
      renameSync(join(context, "remote"), served);
      const env = "export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b";
      must("remote", sh(`cd ${served} && set -e; ${env}; ${check.remote}`));
      remotes.set(name, { server: serveRemote(served), sum: sh(`sha256sum ${served}/files/*.gz`).stdout.split(" ")[0]! });
    }
    // a checkout has times of its own: not those of the test
    must("prepare", sh(`cd ${context} && set -e\n${check.prepare ?? ""}\nfind . -exec touch -h -d @1600000000 {} +`));
    return context;
  }

  const jubako = (host: string, classic: boolean, ...args: string[]): Promise<Output> =>
    run([bin("jubako"), "-H", host, ...args], { ...process.env, DOCKER_BUILDKIT: classic ? "0" : "1" });

  type Builder = "ours" | "ours-classic" | Check["peer"];
  const reference = (name: string, by: Builder) => `${registry.address}/projects/${name}:${by}`;

  const peerOf = ({ peer }: Check) => (peer === "buildkitd" ? buildkitd : dockerd);
  /** What the others build, one after another, beside what the tests do; undefined where it went well. */
  const theirs = new Map<string, Promise<unknown>>();
  function startPeers(): void {
    for (const peer of new Set([buildkitd, dockerd])) {
      let last: Promise<unknown> = Promise.resolve();
      for (const { name, check } of checks) {
        if (!peer || peerOf(check) !== peer || !has(check)) continue;
        last = last
          .then(() => (over ? "the tests are over" : build(name, check, check.peer).then(() => undefined)))
          .catch((error: unknown) => error);
        theirs.set(name, last);
      }
    }
  }

  /** Builds it by one builder and pushes the result. */
  async function build(name: string, check: Check, by: Builder): Promise<void> {
    const context = contextOf(name, check);
    const remote = remotes.get(name);
    const files: [file: string, reference: string][] = [
      ...(check.first ? [[check.first, `${reference(name, by)}-base`] as [string, string]] : []),
      ["Dockerfile", reference(name, by)],
    ];
    for (const [file, ref] of files) {
      const args = [
        "--build-arg",
        `REGISTRY=${registry.address}`,
        ...(check.first ? ["--build-arg", `BASE=${reference(name, by)}-base`] : []),
        ...(remote ? ["--build-arg", `REMOTE=${remote.server.address}`, "--build-arg", `ARCHIVE_SUM=${remote.sum}`] : []),
        ...(check.args ?? []),
      ];
      if (by === "buildkitd") {
        const options = args.map((arg, i) =>
          args[i - 1] === "--build-arg" ? `build-arg:${arg}` : args[i - 1] === "--target" ? `target=${arg}` : undefined,
        );
        // its own frontend, not the image that the file may name
        const dockerfile = join(dir, `${name}.file`);
        mkdirSync(dockerfile, { recursive: true });
        writeFileSync(join(dockerfile, file), readFileSync(join(context, file), "utf8").replace(/^# syntax=.*\n/, "#\n"));
        must(
          `buildkitd: ${name}`,
          await buildkitd!.buildctl(
            ...[
              "build",
              "--progress",
              "plain",
              "--frontend",
              "dockerfile.v0",
              "--local",
              `context=${context}`,
              "--local",
              `dockerfile=${dockerfile}`,
            ],
            ...["--opt", `filename=${file}`, "--opt", "force-network-mode=none"],
            ...options.flatMap((option) => (option ? ["--opt", option] : [])),
            ...["--output", `type=image,name=${ref},push=true`],
          ),
        );
        continue;
      }
      const host = by.startsWith("ours") ? engine.host : dockerd!.host;
      const classic = by.endsWith("classic");
      must(
        `${by}: ${name}`,
        await jubako(host, classic, "build", "-t", ref, "-f", join(context, file), "--network", "none", ...args, context),
      );
      must(`push of ${ref}`, await run(["docker", "-H", host, "push", ref]));
    }
  }

  for (const { name, check } of checks) {
    test.skipIf(!has(check))(
      name,
      async () => {
        await build(name, check, "ours");
        const image = reference(name, "ours");
        const options = check.options ?? [];
        if (check.output !== undefined) {
          const ran = engine.docker("run", "--rm", ...options, image, ...(check.run ?? []));
          expect([ran.stdout, ran.stderr]).toEqual([check.output, expect.any(String)]);
        }
        if (!check.serves) return;
        const { port, path, body, exit } = check.serves;
        const published = await freePort();
        must(
          "run",
          engine.docker("run", "-d", "--name", name, "-p", `127.0.0.1:${published}:${port}`, ...options, image, ...(check.run ?? [])),
        );
        const answer = await until(
          "an answer",
          () =>
            fetch(`http://127.0.0.1:${published}${path}`).then(
              (response) => response.text(),
              () => undefined,
            ),
          15_000,
        ).catch((error) => {
          throw new Error(`${error}\n${engine.docker("logs", name).stdout}${engine.docker("logs", name).stderr}`);
        });
        expect(answer).toBe(body);
        must("stop", engine.docker("stop", name));
        expect(engine.docker("inspect", "-f", "{{.State.ExitCode}}", name).stdout.trim()).toBe(String(exit));
        engine.docker("rm", "-v", name);
      },
      240_000,
    );

    test.skipIf(!has(check) || withoutPeer(check))(
      `${name}: as ${check.peer} makes it`,
      async () => {
        // dockerd's classic builder is compared with our own classic door, which makes a layer of each instruction, too
        const mine: Builder = check.peer === "classic" ? "ours-classic" : "ours";
        const failure = await theirs.get(name);
        if (failure) throw failure;
        if (mine !== "ours") await build(name, check, mine);
        const base = baseImage(check.bases[0]!)!;
        const [made, ours] = (await Promise.all(
          [check.peer, mine].map((by) => pushedImage(registry.address, `projects/${name}`, by, base, began)),
        )) as [PushedImage, PushedImage];
        for (const path of Object.keys(check.differs ?? {})) {
          expect(ours.changes[path]).not.toEqual(made.changes[path]);
          for (const { changes } of [made, ours]) delete changes[path];
        }
        for (const { changes } of [made, ours])
          for (const path of Object.keys(check.varies ?? {}))
            if (changes[path]) changes[path] = changes[path].replace(/\d+ [0-9a-f]{16}$/, "(varies)");
        for (const stub of check.stubs ?? []) if (made.changes[stub]?.startsWith("directory")) delete made.changes[stub];
        // dockerd 20.10 dates directories that it copies, or copies to, otherwise than BuildKit does now.
        if (check.peer !== "buildkitd") for (const { changes } of [made, ours]) dropDirectoryTimes(changes, base.tree);
        for (const [path, line] of Object.entries(ours.changes)) {
          if (!line.startsWith("directory")) continue;
          const their = made.changes[path];
          // A directory in which something came and went has another time: BuildKit does not count that as a change.
          if (their === undefined && timeless(line) === timeless(base.tree[path])) delete ours.changes[path];
          // On a busy machine BuildKit may still write into a directory of the context that it has dated already.
          if (their?.includes(" new") && timeless(line) === timeless(their)) ours.changes[path] = their;
        }
        expect(ours.changes).toEqual(made.changes);
        // Steps that change nothing make no layer here.
        expect(ours.own).toBeLessThanOrEqual(made.own);
        expect(runSettings(ours.config)).toEqual(runSettings(made.config));
      },
      240_000,
    );
  }
});
