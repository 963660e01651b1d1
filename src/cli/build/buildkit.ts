// A build by BuildKit's protocol: a session lends what the flags name, Control.Solve builds, Control.Status tells how it goes.
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { resolve } from "node:path";
import { type BuildSession, type BuildSessionOptions, type Client, loadBuildKit, loadLayouts } from "../../client/index.ts";
import type { Result } from "../../gen/moby/buildkit/v1/frontend_pb.ts";
import { messageOf } from "../../lib/errors.ts";
import { isRpcFailure } from "../../lib/grpc/status.ts";
import { type Cli, StatusError } from "../command.ts";
import { attributes, type BuildFlags, type Lent } from "./attributes.ts";
import type { BuildContext } from "./context.ts";
import { type Display, plainDisplay, quietDisplay, rawDisplay, terminalDisplay } from "./display.ts";
import { parseCache, parseOutput, parseSecret, parseSsh, type Typed } from "./parse.ts";
import { createTrack, type Track } from "./track.ts";

type Output = BuildSessionOptions["output"];

interface Target {
  exporter: { Type: string; Attrs: Record<string, string> } | undefined;
  output: Output;
  /** The image goes into the engine's store. */
  stored: boolean;
}

/** Bytes to a file that appears when the first come, or to standard output. */
function bytesTo(cli: Cli, dest: string): Exclude<Output, undefined> {
  if (dest === "-") {
    if (cli.isTty(1)) throw new Error("dest file is required for this exporter; refusing to write to a terminal");
    return { write: async (data) => cli.out(data), end: async () => {} };
  }
  let fd: number | undefined;
  return {
    async write(data) {
      fd ??= openSync(resolve(dest), "w", 0o644);
      let rest = data;
      while (rest.length > 0) rest = rest.subarray(writeSync(fd, rest));
    },
    async end() {
      if (fd !== undefined) closeSync(fd);
      fd = undefined;
    },
  };
}

function targetOf(cli: Cli, given: BuildFlags): Target {
  const outputs: Typed[] = given.output.map(parseOutput);
  if (given.push) outputs.push({ type: "registry", attrs: {} });
  if (given.load) outputs.push({ type: "docker", attrs: {} });
  if (outputs.length > 1) throw new Error("multiple outputs are not supported");
  const named = given.tag.length > 0 ? { name: given.tag.join(",") } : {};
  const [output] = outputs;
  if (!output) return { exporter: { Type: "moby", Attrs: named }, output: undefined, stored: true };
  const { dest, ...attrs } = output.attrs;
  const all = { ...named, ...attrs };
  switch (output.type) {
    case "local":
      return { exporter: { Type: "local", Attrs: attrs }, output: { directory: resolve(dest!) }, stored: false };
    case "docker":
      if (dest === undefined) return { exporter: { Type: "moby", Attrs: all }, output: undefined, stored: true };
      break;
    case "image":
      return { exporter: { Type: attrs.push === "true" ? "image" : "moby", Attrs: all }, output: undefined, stored: true };
    case "registry":
      return { exporter: { Type: "image", Attrs: { push: "true", ...all } }, output: undefined, stored: true };
  }
  return { exporter: { Type: output.type, Attrs: all }, output: bytesTo(cli, dest ?? "-"), stored: false };
}

async function displayOf(cli: Cli, given: BuildFlags, track: Track): Promise<Display> {
  const write = (text: string) => cli.err(text);
  const terminal = async () => {
    const { terminalSize } = await import("../terminal/tty.ts");
    return terminalDisplay(track, write, () => terminalSize(2) ?? { w: 80, h: 24 });
  };
  const kind = given.quiet ? "quiet" : given.progress || "auto";
  switch (kind) {
    case "quiet":
    case "none":
      return quietDisplay(track);
    case "rawjson":
      return rawDisplay(track, write);
    case "plain":
      return plainDisplay(track, write);
    case "tty":
      if (!cli.isTty(2)) throw new Error("failed to get console: provided file is not a console");
      return terminal();
    case "auto":
      return cli.isTty(2) ? terminal() : plainDisplay(track, write);
  }
  throw new Error(`invalid progress mode ${kind}`);
}

function warningsText(track: Track, debug: boolean): string {
  const { warnings } = track;
  if (warnings.length === 0) return "";
  const list = warnings.map(
    ({ short, url, detail }) => ` - ${short}${debug ? `\n   ${detail.join("\n   ")}${url ? `\n   ${url}` : ""}` : ""}`,
  );
  return `\n ${warnings.length} warning${warnings.length === 1 ? "" : "s"} found${debug ? "" : " (use --debug to expand)"}:\n${list.join("\n")}\n`;
}

/** Digests are cut short, as docker does with ids. */
const short = (text: string) => text.replace(/\b(?:sha256:)?([0-9a-f]{12})[0-9a-f]{52}\b/g, "$1");

function missesText(track: Track): string {
  return short(
    track.misses
      .map(({ name, earlier, changed }) => {
        if (!earlier) return `MISS ${name}\n  never built here before\n`;
        const lines = changed.map(({ name: what, before, now }) =>
          before === undefined
            ? `  + ${what}: ${now}\n`
            : now === undefined
              ? `  - ${what}: ${before}\n`
              : `  ~ ${what}: ${before} -> ${now}\n`,
        );
        return `MISS ${name}\n${lines.length > 0 ? lines.join("") : "  no input changed: its record was pruned, or the cache was not asked\n"}`;
      })
      .join(""),
  );
}

async function openSession(
  cli: Cli,
  client: Client,
  given: BuildFlags,
  { directories, layouts }: Pick<Lent, "directories" | "layouts">,
  target: Target,
): Promise<BuildSession> {
  const secrets = new Map(given.secret.map((text) => parseSecret(text, cli.env)).map((secret) => [secret.id, secret]));
  const { lend } = await loadBuildKit();
  return lend(client, {
    directories,
    layouts,
    ssh: new Map(given.ssh.map((text) => parseSsh(text, cli.env))),
    output: target.output,
    sharedKey: sharedKey(cli, directories),
    async secret(id) {
      const secret = secrets.get(id);
      if (!secret) return undefined;
      if (secret.file !== undefined) return readFileSync(secret.file);
      const value = cli.env[secret.variable!];
      return value === undefined ? undefined : Buffer.from(value);
    },
    async credentials(host) {
      const { getCredentials, serverOf } = await import("../credentials.ts");
      const found = await getCredentials(cli.config, serverOf(host === "registry-1.docker.io" ? "docker.io" : host));
      if (found?.identitytoken) return { username: "", secret: found.identitytoken };
      return { username: found?.username ?? "", secret: found?.password ?? "" };
    },
  });
}

/** The same for each build of a directory from this machine, and for no other. */
function sharedKey(cli: Cli, directories: ReadonlyMap<string, string>): string {
  const path = `${cli.configDir}/.buildNodeID`;
  let node: string;
  try {
    node = readFileSync(path, "utf8").trim();
  } catch {
    node = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("hex");
    try {
      writeFileSync(path, node, { mode: 0o600, flag: "wx" });
    } catch {
      // a directory that can't be written to: then nothing is remembered
    }
  }
  return `${node}:${directories.get("context") ?? ""}`.slice(0, 1000);
}

/** Values that are JSON in base64 or text become JSON, as docker writes them. */
function metadataOf(response: Record<string, string>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(response).map(([name, value]) => {
      if (/^[A-Za-z0-9+/]+=*$/.test(value) && value.length > 20) {
        try {
          const decoded: unknown = JSON.parse(Buffer.from(value, "base64").toString());
          if (typeof decoded === "object") return [name, decoded];
        } catch {
          // not JSON: a value as any other
        }
      }
      return [name, value];
    }),
  );
}

/** Caches in directories: which manifest is meant stands in their index. One that is not there makes a build slower, not wrong. */
async function localImports(list: Typed[], layouts: Map<string, string>, warn: (text: string) => void): Promise<Typed[]> {
  const kept: Typed[] = [];
  for (const { type, attrs } of list) {
    if (type !== "local") {
      kept.push({ type, attrs });
      continue;
    }
    const { src = "", tag = "latest", digest } = attrs;
    const { digestIn } = await loadLayouts();
    try {
      const found = digest ?? digestIn(resolve(src), tag);
      if (found === undefined) throw new Error(`there is no ${tag} in ${src}`);
      layouts.set(`local:${src}`, resolve(src));
      kept.push({ type, attrs: { ...attrs, digest: found } });
    } catch (error) {
      warn(`WARNING: local cache import at ${src} not found due to err: ${messageOf(error)}\n`);
    }
  }
  return kept;
}

/** Names what was written into directories of caches. */
async function tagCaches(list: readonly Typed[], response: Record<string, string>): Promise<void> {
  const manifest = response["cache.manifest"];
  for (const { type, attrs } of list) {
    if (type !== "local" || !manifest) continue;
    const { tagLayout } = await loadLayouts();
    tagLayout(resolve(attrs.dest!), JSON.parse(manifest) as Parameters<typeof tagLayout>[1], attrs.tag || "latest");
  }
}

/** Where one fails the other is closed. */
async function both<A extends { close(): void }, B extends { close(): void }>(first: Promise<A>, second: Promise<B>): Promise<[A, B]> {
  try {
    return await Promise.all([first, second]);
  } catch (error) {
    for (const each of [first, second])
      each.then(
        (opened) => opened.close(),
        () => {},
      );
    throw error;
  }
}

const CALLS: Record<string, string> = {
  check: "frontend.lint",
  lint: "frontend.lint",
  outline: "frontend.outline",
  targets: "frontend.targets",
  subrequests: "frontend.subrequests.describe",
};

/** What a subrequest answers; it makes nothing. */
function call(cli: Cli, request: string, result: Result | undefined, format: string | undefined): number {
  const text = (name: string) => Buffer.from(result?.metadata[name] ?? new Uint8Array()).toString();
  if (format === "json") cli.out(`${text("result.json").trim()}\n`);
  else {
    const shown = text("result.txt");
    cli.out(shown === "" && request === "frontend.lint" ? "Check complete, no warnings found.\n" : shown);
  }
  return Number(text("result.statuscode") || 0);
}

export async function buildWithBuildKit(cli: Cli, client: Client, given: BuildFlags, context: BuildContext): Promise<number | undefined> {
  const { attrs, directories, layouts } = await attributes(cli, given, context);
  const [calling = "", format] = (given.check ? "check" : given.call).split(",").map((each) => each.replace(/^format=/, ""));
  const request = calling === "build" ? undefined : CALLS[calling];
  if (calling !== "build" && !request)
    throw new Error(`unknown call ${JSON.stringify(calling)}; there are build, ${Object.keys(CALLS).join(", ")}`);
  const target: Target = request ? { exporter: undefined, output: undefined, stored: false } : targetOf(cli, given);
  if (request) attrs.requestid = request;
  const imports = await localImports(
    given["cache-from"].map((text) => parseCache(text, "cache-from")),
    layouts,
    (text) => cli.err(text),
  );
  const exports_ = given["cache-to"].map((text) => parseCache(text, "cache-to"));
  for (const { type, attrs: own } of exports_) if (type === "local") layouts.set(`local:${own.dest}`, resolve(own.dest!));
  const allowed = [...given.allow, ...(given.network === "host" ? ["network.host"] : [])];

  const { newRef, openBuildKit } = await loadBuildKit();
  const track = createTrack();
  const display = await displayOf(cli, given, track);
  // Two connections, opened side by side.
  const [kit, session] = await both(openBuildKit(client), openSession(cli, client, given, { directories, layouts }, target));
  let watching: Promise<void> = Promise.resolve();
  const ref = newRef();
  const ending = new AbortController();
  const interrupt = () => ending.abort(new Error("context canceled"));
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  let finished = false;
  let entered = false;
  const finish = (failed: boolean) => {
    if (!finished) display.finish(failed);
    finished = true;
  };
  try {
    const own = request !== undefined || given["on-failure"] !== "";
    const solving = kit.solve(
      {
        Ref: ref,
        Session: session.id,
        ...(own ? {} : { Frontend: "dockerfile.v0", FrontendAttrs: attrs }),
        Entitlements: allowed,
        Cache: {
          Imports: imports.map(({ type, attrs: Attrs }) => ({ Type: type, Attrs })),
          Exports: exports_.map(({ type, attrs: Attrs }) => ({ Type: type, Attrs })),
        },
        // Engines before 2024 know one exporter, later ones a list.
        ...(target.exporter
          ? { ExporterDeprecated: target.exporter.Type, ExporterAttrsDeprecated: target.exporter.Attrs, Exporters: [target.exporter] }
          : {}),
      },
      ending.signal,
    );
    solving.catch(() => {});
    watching = (async () => {
      for await (const update of kit.status(ref, ending.signal)) display.update(update);
    })().catch((error: unknown) => {
      // what went wrong is the build's to say
      if (cli.env.JUBAKO_DEBUG) cli.err(`status: ${error}\n`);
    });
    if (own) {
      const headers = { "buildkit-controlapi-buildid": ref };
      const gateway = await kit.gateway();
      try {
        const { result } = await gateway.solve(
          {
            Frontend: "dockerfile.v0",
            FrontendOpt: attrs,
            allowResultReturn: true,
            allowResultArrayRef: true,
            // A step must fail while the build is still ours.
            Evaluate: request === undefined,
          },
          { headers, signal: ending.signal },
        );
        await gateway.return(request === undefined && result ? { result } : {}, { headers });
        if (request !== undefined) {
          await Promise.all([solving.catch(() => {}), watching]);
          finish(false);
          return call(cli, request, result, format);
        }
      } catch (error) {
        if (given["on-failure"] === "shell" && isRpcFailure(error) && !ending.signal.aborted) {
          await new Promise((resolve) => setTimeout(resolve, 200));
          finish(true);
          const { explain, failureText } = await import("./failure.ts");
          cli.err(failureText(explain(error, track)));
          cli.err(`ERROR: ${error.rawMessage}\nThe step's container as it was; its end is the build's end.\n`);
          const { enterFailed } = await import("./shell.ts");
          entered = await enterFailed(cli, gateway, headers, error);
        }
        await gateway.return({ error: { code: 2, message: String(error) } }, { headers }).catch(() => {});
        throw error;
      }
    }
    const response = await solving;
    await watching;
    finish(false);
    await tagCaches(exports_, response);
    report(cli, given, target, response);
    if (given.explain) cli.err(missesText(track));
    if (!given.quiet && given.progress !== "rawjson") cli.err(warningsText(track, cli.env.JUBAKO_DEBUG === "1"));
    return 0;
  } catch (error) {
    // What was told of the failed step may still be on its way.
    await Promise.race([watching, new Promise((resolve) => setTimeout(resolve, 500))]);
    finish(true);
    if (!isRpcFailure(error) && !ending.signal.aborted) throw error;
    if (ending.signal.aborted) throw new StatusError(130, "ERROR: failed to build: context canceled");
    const { explain, failureText } = await import("./failure.ts");
    const explained = explain(error, track);
    if (given.explain) cli.err(missesText(track));
    if (!entered) cli.err(failureText(explained));
    throw new StatusError(1, `ERROR: failed to build: failed to solve: ${explained.message}`);
  } finally {
    process.off("SIGINT", interrupt);
    process.off("SIGTERM", interrupt);
    session.close();
    kit.close();
  }
}

function report(cli: Cli, given: BuildFlags, target: Target, response: Record<string, string>): void {
  const id = response["containerimage.config.digest"] ?? response["containerimage.digest"] ?? "";
  if (given.iidfile) writeFileSync(given.iidfile, id);
  if (given["metadata-file"]) writeFileSync(given["metadata-file"], `${JSON.stringify(metadataOf(response), null, 2)}\n`);
  if (given.quiet && target.stored) cli.out(`${id}\n`);
}
