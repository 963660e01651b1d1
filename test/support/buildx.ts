// The docker CLI with the buildx plugin on an engine of the test's own, and contexts to build.
import { chmodSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type Output, root, startEngine, type TestEngine, which } from "./engine.ts";

/** A CLI plugin: on PATH, where docker looks for plugins, or where scripts/go-tools.sh builds it. */
function plugin(name: string): string | undefined {
  const places = [
    join(root, "build/tools"),
    "/usr/local/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
  ];
  return which(name) ?? places.map((place) => join(place, name)).find(existsSync);
}

export const buildx = plugin("docker-buildx");
export const compose = plugin("docker-compose-v5") ?? plugin("docker-compose");
export const buildctl = plugin("buildctl");
if (!buildx) console.log("skip: the buildx plugin is not installed (scripts/go-tools.sh buildx)");

export interface TestBuildx {
  engine: TestEngine;
  /** For a docker CLI that finds the plugins. */
  env: Record<string, string>;
  /** A new directory with these files. */
  context(files: Record<string, string>): string;
  docker(...args: string[]): Output;
  /** The output of a container. */
  run(...args: string[]): string;
  /** Succeeds, and answers what docker printed. */
  ok(result: Output): string;
  build(dir: string, ...args: string[]): Output;
}

export async function startBuildx(options: Parameters<typeof startEngine>[0] = {}): Promise<TestBuildx> {
  const engine = await startEngine(options);
  const plugins = join(engine.dir, "config/cli-plugins");
  mkdirSync(plugins, { recursive: true });
  // A buildx that was built from its module does not know its version, which compose asks for.
  writeFileSync(
    join(plugins, "docker-buildx"),
    `#!/bin/sh
[ "$1" = docker-cli-plugin-metadata ] && { echo '{"SchemaVersion":"0.1.0","Vendor":"Docker Inc.","Version":"v0.30.1"}'; exit; }
exec ${buildx} "$@"
`,
  );
  chmodSync(join(plugins, "docker-buildx"), 0o755);
  if (compose) symlinkSync(compose, join(plugins, "docker-compose"));
  const env = {
    DOCKER_CONFIG: join(engine.dir, "config"),
    DOCKER_BUILDKIT: "1",
    NO_COLOR: "1",
    BUILDX_NO_DEFAULT_ATTESTATIONS: "1",
    SSH_AUTH_SOCK: "",
  };
  let contexts = 0;
  const docker = (...args: string[]) => engine.dockerWith({ env, timeoutMs: 60_000 }, ...args);
  return {
    engine,
    env,
    docker,
    context(files) {
      const dir = join(engine.dir, `context-${++contexts}`);
      for (const [name, text] of Object.entries(files)) {
        mkdirSync(dirname(join(dir, name)), { recursive: true });
        writeFileSync(join(dir, name), text);
      }
      return dir;
    },
    run: (...args) => docker("run", "--rm", ...args).stdout,
    ok(result) {
      if (result.status !== 0) throw new Error(`${result.stdout}\n${result.stderr}\n${engine.log().slice(-2000)}`);
      return result.stdout + result.stderr;
    },
    build: (dir, ...args) => docker("buildx", "build", "--progress", "plain", ...args, dir),
  };
}
