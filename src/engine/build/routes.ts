// POST /build, the classic protocol: a tar goes in, lines of JSON come out as docker's first builder wrote them.
import { Readable } from "node:stream";
import type { HostConfig } from "../../api/types.ts";
import type { Builder, BuildHost, BuildProgress, BuildRequest } from "../../build/index.ts";
import type { Credentials } from "../../distribution/index.ts";
import { invalidArgument, isKind, unimplemented } from "../../lib/errors.ts";
import { familiarReference, parsePlatform, parseReference, type Reference, withDefaultTag } from "../../oci/index.ts";
import type { BuildKit } from "../buildkit/index.ts";
import type { Engine } from "../context.ts";
import { coreOf } from "../images/core.ts";
import { type ProgressSink, shortId, streamed } from "../images/progress.ts";
import { type Call, flag, type Route } from "../route.ts";
import { resolveBase, storeImage } from "./images.ts";
import { isList, isStrings, json, parsed } from "./query.ts";
import { prepareStep } from "./step.ts";

function integer(query: URLSearchParams, name: string): number {
  const text = query.get(name);
  if (!text) return 0;
  if (!/^-?\d{1,15}$/.test(text)) throw invalidArgument(`invalid value for ${name}: ${text}`);
  return Number(text);
}

/** Limits of the containers that RUN steps are. */
function limitsOf(query: URLSearchParams): HostConfig {
  const limits: HostConfig = {};
  const numbers = {
    Memory: "memory",
    MemorySwap: "memswap",
    CpuShares: "cpushares",
    CpuPeriod: "cpuperiod",
    CpuQuota: "cpuquota",
    ShmSize: "shmsize",
  } as const;
  for (const [field, name] of Object.entries(numbers)) {
    const value = integer(query, name);
    if (value !== 0) limits[field as keyof typeof numbers] = value;
  }
  const cpus = query.get("cpusetcpus");
  if (cpus) limits.CpusetCpus = cpus;
  const nodes = query.get("cpusetmems");
  if (nodes) limits.CpusetMems = nodes;
  const parent = query.get("cgroupparent");
  if (parent) limits.CgroupParent = parent;
  const hosts = query
    .getAll("extrahosts")
    .flatMap((text) => (text.startsWith("[") ? (parsed(text, "extrahosts", isList) ?? []) : text.split(",")));
  if (hosts.length > 0) limits.ExtraHosts = hosts.filter((each): each is string => typeof each === "string" && each !== "");
  const ulimits = query.get("ulimits");
  if (ulimits && ulimits !== "null") limits.Ulimits = parsed(ulimits, "ulimits", isList) as NonNullable<HostConfig["Ulimits"]>;
  return limits;
}

/** X-Registry-Config: base64 of { registry: credentials }. As Docker, what can't be read counts as none. */
function credentialsOf(call: Call): (domain: string) => Credentials | undefined {
  let all: Record<string, Record<string, unknown>> = {};
  try {
    const header = call.headers["x-registry-config"];
    if (header) all = JSON.parse(Buffer.from(header, "base64url").toString("utf8")) as typeof all;
  } catch {
    all = {};
  }
  return (domain) => {
    const names = domain === "docker.io" ? ["https://index.docker.io/v1/", "docker.io", "index.docker.io"] : [domain, `https://${domain}`];
    const found = names.map((name) => all?.[name]).find(Boolean);
    if (!found) return undefined;
    const out: Credentials = {};
    if (typeof found.username === "string" && found.username) out.username = found.username;
    if (typeof found.password === "string" && found.password) out.password = found.password;
    if (typeof found.identitytoken === "string" && found.identitytoken) out.identityToken = found.identitytoken;
    return Object.keys(out).length > 0 ? out : undefined;
  };
}

interface Settings {
  /** Where the context is, if it does not come with the request. */
  remote: string;
  request: Omit<BuildRequest, "context">;
  names: Reference[];
  limits: HostConfig;
  quiet: boolean;
  remove: boolean;
  pull: boolean;
}

function settingsOf(query: URLSearchParams): Settings {
  if (flag(query, "squash"))
    throw invalidArgument(
      "squash is not supported: it would give up the sharing of layers between images; use a multi-stage build instead",
    );
  if ((query.get("outputs") ?? "") !== "") throw unimplemented("Jubako does not have this feature yet: build outputs other than the image");
  const buildArgs = new Map<string, string>();
  for (const [name, value] of Object.entries(json(query, "buildargs", isStrings) ?? {})) if (value !== null) buildArgs.set(name, value);
  const labels: Record<string, string> = {};
  for (const [name, value] of Object.entries(json(query, "labels", isStrings) ?? {})) labels[name] = value ?? "";
  const platform = query.get("platform");
  const network = query.get("networkmode") || "default";
  return {
    request: {
      dockerfile: query.get("dockerfile") ?? "",
      target: query.get("target") ?? "",
      buildArgs,
      labels,
      platform: platform ? parsePlatform(platform) : undefined,
      network,
      // The classic protocol has no way to grant any.
      entitlements: new Set(),
      noCache: flag(query, "nocache"),
      cacheFrom: (json(query, "cachefrom", isList) ?? []).filter((each): each is string => typeof each === "string" && each !== ""),
    },
    remote: query.get("remote") ?? "",
    names: query
      .getAll("t")
      .filter(Boolean)
      .map((name) => withDefaultTag(parseReference(name))),
    limits: limitsOf(query),
    quiet: flag(query, "q"),
    remove: flag(query, "rm", true),
    pull: flag(query, "pull"),
  };
}

function classicProgress(sink: ProgressSink, settings: Settings): BuildProgress {
  const say = (text: string) => {
    if (!settings.quiet) sink.line({ stream: text });
  };
  const decoder = new TextDecoder();
  return {
    step: (number, total, text) => say(`Step ${number}/${total} : ${text}\n`),
    triggers: (count) => say(`# Executing ${count} build trigger${count === 1 ? "" : "s"}\n`),
    cached: () => say(" ---> Using cache\n"),
    running: (id) => say(` ---> Running in ${id.slice(0, 12)}\n`),
    output: (bytes) => say(decoder.decode(bytes, { stream: true })),
    done(id, container) {
      if (container && settings.remove) say(` ---> Removed intermediate container ${container.slice(0, 12)}\n`);
      say(` ---> ${id.slice(0, 12)}\n`);
    },
    warning: (text) => say(`[Warning] ${text}\n`),
  };
}

export function buildRoutes(engine: Engine, builderOf: () => Promise<Builder>, buildKitOf: () => Promise<BuildKit>): Route[] {
  const core = coreOf(engine);

  async function build(call: Call, settings: Settings, sink: ProgressSink, signal: AbortSignal): Promise<void> {
    const builder = await builderOf();
    const credentials = credentialsOf(call);
    const quiet: ProgressSink = settings.quiet ? { line: () => {}, bar: () => {} } : sink;
    let begun = false;
    const counted: ProgressSink = {
      line(line) {
        begun = true;
        sink.line(line);
      },
      bar: sink.bar,
    };
    try {
      const host: BuildHost = {
        resolveImage(ref, platform, mode) {
          const never = mode === "local";
          return resolveBase(core, ref, platform, { always: settings.pull && !never, never, credentials, sink: quiet, signal });
        },
        prepareStep: (request) => prepareStep(engine, request, settings.limits),
      };
      const none = { onEvent() {}, signal, noCache: false, entitlements: new Set<string>() };
      await using remote = settings.remote === "" ? undefined : await builder.open(none, host);
      const context = remote ? Readable.from((await import("../../build/index.ts")).remoteContext(remote, settings.remote)) : call.body;
      const id = await builder.build({ ...settings.request, context }, host, classicProgress(counted, settings), signal, (image, lease) =>
        storeImage(core, image, settings.names, lease),
      );
      if (settings.quiet) {
        sink.line({ stream: `${id}\n` });
        return;
      }
      sink.line({ aux: { ID: id } });
      sink.line({ stream: `Successfully built ${shortId(id)}\n` });
      for (const reference of settings.names) sink.line({ stream: `Successfully tagged ${familiarReference(reference)}\n` });
    } catch (error) {
      if (signal.aborted) throw error;
      const { message, status, excerpt } = builder.explain(error);
      if (!begun && status === undefined) {
        if (excerpt !== "" && isKind(error, "InvalidArgument")) throw invalidArgument(`${message}\n${excerpt}`, error);
        throw error;
      }
      if (excerpt !== "") sink.line({ stream: `${excerpt}\n` });
      sink.line({ errorDetail: { ...(status === undefined ? {} : { code: status }), message }, error: message });
    }
  }

  return [
    {
      method: "POST",
      path: "/build",
      async handle(call) {
        if (call.query.get("version") === "2") {
          const { buildBySession } = await import("./session.ts");
          return buildBySession(await buildKitOf(), call);
        }
        const settings = settingsOf(call.query);
        return { type: "application/json", stream: await streamed((sink, signal) => build(call, settings, sink, signal), call.signal) };
      },
    },
    {
      method: "POST",
      path: "/build/cancel",
      async handle({ query }) {
        const id = query.get("id");
        if (!id) throw invalidArgument("build ID not provided");
        (await buildKitOf()).builds.cancel(id);
        return { status: 200 };
      },
    },
    {
      method: "POST",
      path: "/build/prune",
      async handle({ query }) {
        const builder = await builderOf();
        const { pruneBuilds } = await import("./prune.ts");
        return { json: await pruneBuilds(builder, query, engine.config.dataRoot) };
      },
    },
  ];
}
