// A build by the classic protocol, for engines without BuildKit, and where DOCKER_BUILDKIT=0 asks for it: the context goes as one tar, lines of JSON come back.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Client, ProgressMessage } from "../../client/index.ts";
import { createMatcher, ignorePatterns } from "../../lib/ignore.ts";
import { type Cli, StatusError } from "../command.ts";
import { getCredentials, INDEX_SERVER } from "../credentials.ts";
import { encodeHeader, TRAILER } from "../tar/format.ts";
import { packDirectory } from "../tar/pack.ts";
import { showProgress } from "../terminal/progress.ts";
import { type BuildFlags, buildArgs, extraHost, pairs } from "./attributes.ts";
import { type BuildContext, pathWithin } from "./context.ts";

/** What only BuildKit has. */
const BEYOND = ["output", "secret", "ssh", "build-context", "cache-to", "allow", "attest"] as const;

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** A context's files without what .dockerignore leaves out; the Dockerfile is always there. */
async function* tarOf(
  directory: string,
  inside: string | undefined,
  outside: { name: string; text: string } | undefined,
): AsyncGenerator<Uint8Array> {
  const own = inside === undefined ? undefined : textOf(join(directory, `${inside}.dockerignore`));
  const patterns = ignorePatterns(own ?? textOf(join(directory, ".dockerignore")) ?? "");
  for (const needed of [inside, ".dockerignore", ...(own === undefined ? [] : [`${inside}.dockerignore`])])
    if (needed !== undefined && patterns.length > 0) patterns.push(`!${needed}`);
  const ignored = patterns.length > 0 ? createMatcher(patterns) : () => false;
  yield* packDirectory(directory, ignored);
  if (outside) {
    const bytes = Buffer.from(outside.text);
    const plain = { type: "0", mode: 0o644, uid: 0, gid: 0, mtime: 0, link: "", major: 0, minor: 0, pax: {} };
    yield encodeHeader({ ...plain, name: outside.name, size: bytes.length });
    yield Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
  }
  yield TRAILER;
}

async function registryConfig(cli: Cli): Promise<string> {
  const servers = new Set([
    ...Object.keys(cli.config.auths ?? {}),
    ...Object.keys(cli.config.credHelpers ?? {}),
    ...(cli.config.credsStore ? [INDEX_SERVER] : []),
  ]);
  const all: Record<string, unknown> = {};
  for (const server of servers) {
    const found = await getCredentials(cli.config, server).catch(() => undefined);
    if (found) all[server] = found;
  }
  return Object.keys(all).length > 0 ? Buffer.from(JSON.stringify(all)).toString("base64url") : "";
}

export async function buildClassic(cli: Cli, client: Client, given: BuildFlags, context: BuildContext): Promise<number | undefined> {
  const beyond = BEYOND.find((name) => given[name].length > 0) ?? (["explain", "on-failure", "check"] as const).find((name) => given[name]);
  if (beyond) throw new Error(`the --${beyond} option requires BuildKit, which this engine does not have or DOCKER_BUILDKIT=0 forbids`);
  const { directory, remote } = context;
  const inside = directory === undefined ? undefined : pathWithin(directory, context.dockerfile);
  const outside =
    directory !== undefined && inside === undefined
      ? {
          name: `.dockerfile.${process.pid}`,
          text: readFileSync(join(context.dockerfile.directory!, context.dockerfile.name), "utf8"),
        }
      : undefined;
  const query = {
    t: given.tag,
    dockerfile: outside?.name ?? inside ?? context.dockerfile.name,
    ...(remote === undefined ? {} : { remote }),
    q: given.quiet ? "1" : undefined,
    nocache: given["no-cache"] ? "1" : undefined,
    rm: given.rm ? "1" : "0",
    forcerm: given["force-rm"] ? "1" : undefined,
    pull: given.pull ? "1" : undefined,
    squash: given.squash ? "1" : undefined,
    target: given.target || undefined,
    platform: given.platform[0],
    networkmode: given.network,
    extrahosts: given["add-host"].map((text) => extraHost(text).replace("=", ":")),
    buildargs: JSON.stringify(Object.fromEntries(buildArgs(cli, given["build-arg"]))),
    labels: JSON.stringify(pairs(given.label)),
    cachefrom: given["cache-from"].length > 0 ? JSON.stringify(given["cache-from"]) : undefined,
    shmsize: given["shm-size"] || undefined,
    cgroupparent: given["cgroup-parent"] || undefined,
    memory: given.memory || undefined,
    memswap: given["memory-swap"] || undefined,
    cpushares: given["cpu-shares"] || undefined,
    cpuperiod: given["cpu-period"] || undefined,
    cpuquota: given["cpu-quota"] || undefined,
    cpusetcpus: given["cpuset-cpus"] || undefined,
    cpusetmems: given["cpuset-mems"] || undefined,
    ulimits: given.ulimit.length > 0 ? JSON.stringify(given.ulimit.map(ulimit)) : undefined,
  };
  const body = directory === undefined ? nothing() : tarOf(directory, inside, outside);
  let id = "";
  let said = "";
  let code = 0;
  const messages = await client.build.classic(query, body, await registryConfig(cli));
  const watched = (async function* (): AsyncGenerator<ProgressMessage> {
    for await (const message of messages) {
      const failure = message as { errorDetail?: { code?: number } };
      if (failure.errorDetail?.code) code = failure.errorDetail.code;
      if (given.quiet && message.stream) said = message.stream;
      else yield message;
    }
  })();
  try {
    await showProgress(watched, {
      write: (text) => cli.out(text),
      terminal: cli.isTty(1),
      aux: (value) => {
        id = (value as { ID?: string }).ID ?? id;
      },
    });
  } catch (error) {
    if (code) throw new StatusError(code, (error as Error).message);
    throw error;
  }
  if (given.quiet) cli.out(said);
  if (given.iidfile) writeFileSync(given.iidfile, id || said.trim());
  return 0;
}

async function* nothing(): AsyncGenerator<Uint8Array> {}

function ulimit(text: string): { Name: string; Soft: number; Hard: number } {
  const [, name = "", soft = "", hard] = /^([a-z]+)=(-?\d+)(?::(-?\d+))?$/.exec(text) ?? [];
  if (!name) throw new Error(`invalid ulimit argument: ${text}`);
  return { Name: name, Soft: Number(soft), Hard: Number(hard ?? soft) };
}
