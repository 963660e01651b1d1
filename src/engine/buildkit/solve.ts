// One build from its request to the client's answer: open it, get its result (from a definition, from our frontend, or from the client's own through the gateway), export it.
import type { BuildEvent, CacheOption, Result } from "../../build/index.ts";
import type { SolveRequest } from "../../gen/moby/buildkit/v1_pb.ts";
import { cancelled, invalidArgument, messageOf, permissionDenied, unimplemented } from "../../lib/errors.ts";
import { type Build, createBuild } from "./builds.ts";
import { isTrue, sinkOf } from "./exports.ts";
import { historyOf } from "./history.ts";
import { createBuildHost } from "./host.ts";
import type { BuildKit } from "./index.ts";
import type { Session } from "./sessions.ts";
import { createProgress } from "./status.ts";

/** `docker buildx` says "moby" to the builder in an engine, and means its image store. */
const typeOf = (type: string): string => (type === "moby" || type === "registry" ? "image" : type);

export const emptyResult = (): Result => ({ ref: undefined, refs: new Map(), metadata: new Map(), attestations: new Map() });

function epochOf(attrs: Record<string, string>): number | undefined {
  const text = attrs["build-arg:SOURCE_DATE_EPOCH"] ?? "";
  return /^\d{1,12}$/.test(text) ? Number(text) : undefined;
}

/** What steps may have beyond a sandbox: what the client grants, as far as the engine's settings let it. */
function entitlementsOf(kit: BuildKit, request: SolveRequest): ReadonlySet<string> {
  const allowed = kit.engine.config.builder?.entitlements ?? ["network.host"];
  for (const name of request.Entitlements)
    if (!allowed.includes(name)) throw permissionDenied(`granting entitlement ${name} is not allowed by build daemon configuration`);
  return new Set(request.Entitlements);
}

/** What would change a build if it were understood is not passed over. */
async function refuseMissing(request: SolveRequest): Promise<void> {
  if (request.SourcePolicySession !== "") throw unimplemented("source policies that a client serves");
  if (request.EnableSessionExporter) throw unimplemented("exporters that a client serves");
  if (request.ProxyNetwork) throw unimplemented("the proxy network of builds");
  const { checkCacheExport, checkExport } = await import("../../build/index.ts");
  for (const exporter of exportersOf(request)) checkExport(exporter);
  for (const option of cacheOptions(request.Cache?.Exports ?? [])) checkCacheExport(option);
}

interface Exporter {
  type: string;
  attrs: Record<string, string>;
}

function exportersOf(request: SolveRequest): Exporter[] {
  const list = request.Exporters.map(({ Type, Attrs }) => ({ type: Type, attrs: Attrs }));
  if (list.length === 0 && request.ExporterDeprecated !== "")
    list.push({ type: request.ExporterDeprecated, attrs: request.ExporterAttrsDeprecated });
  return list.map(({ type, attrs }) => ({
    type: typeOf(type),
    attrs: type === "registry" ? { push: "true", store: "false", ...attrs } : attrs,
  }));
}

export const cacheOptions = (list: readonly { Type: string; Attrs: Record<string, string> }[]): CacheOption[] =>
  list.map(({ Type, Attrs }) => ({ type: Type, attrs: Attrs }));

/** Runs a build from its announcement to its end. */
export async function solve(kit: BuildKit, request: SolveRequest, callSignal: AbortSignal): Promise<Record<string, string>> {
  const { Ref: ref } = request;
  if (!/^[\w.-]{1,128}$/.test(ref)) throw invalidArgument("a build needs a reference");
  const progress = createProgress();
  const ending = new AbortController();
  const cancel = () => ending.abort(cancelled("context canceled"));
  const announced = kit.builds.announce(ref, progress, cancel);
  const entry = historyOf(request);
  if (!request.Internal) kit.history.begin(entry, progress);
  let build: Build | undefined;
  try {
    await refuseMissing(request);
    const entitlements = entitlementsOf(kit, request);
    const client = request.Session === "" ? undefined : await kit.sessions.get(request.Session, callSignal);
    // The client that asked, its session, a cancel call and the engine's end: each ends the build.
    for (const each of [callSignal, kit.engine.signal, ...(client ? [client.closed] : [])]) {
      if (each.aborted) cancel();
      else each.addEventListener("abort", cancel, { once: true });
    }
    const { signal } = ending;
    const onEvent = (event: BuildEvent) => progress.tell(event);
    const host = createBuildHost({ engine: kit.engine, session: client, locals: kit.locals, uploads: kit.uploads, onEvent, signal });
    const attrs = request.FrontendAttrs;
    const { createPolicy, withPolicy } = await import("../../build/index.ts");
    const policy = request.SourcePolicy?.rules.length ? createPolicy([request.SourcePolicy]) : undefined;
    await using session = await kit.builder.open(
      {
        onEvent,
        signal,
        noCache: attrs["no-cache"] === "",
        epoch: epochOf(attrs),
        entitlements,
        explain: attrs["jubako.explain"] === "true",
        // Only a client that is its own frontend can look into what is left of a step.
        keepFailed: request.Frontend === "" && (request.Definition?.def.length ?? 0) === 0,
        cacheImports: cacheOptions(request.Cache?.Imports ?? []),
        request: { frontend: request.Frontend, attrs },
        ...(policy ? { policy } : {}),
      },
      host,
    );
    build = createBuild({
      ref,
      progress,
      session,
      host: policy ? withPolicy(host, policy) : host,
      policy,
      signal,
      inputs: new Map(Object.entries(request.FrontendInputs)),
    });
    announced.begin(build);
    const result = await resultOf(kit, build, request);
    await scan(build, request, result);
    const answer = await exportAll(kit, build, request, result, client);
    const provenance = request.Internal ? new Map() : await session.provenance(result);
    kit.history.end(entry, { answer, provenance });
    return answer;
  } catch (error) {
    const failure = ending.signal.aborted ? cancelled("context canceled", error) : error;
    kit.history.end(entry, { error: failure, sources: build?.sources ?? [] });
    if (failure instanceof Error && build) Object.assign(failure, { sources: build.sources });
    throw failure;
  } finally {
    kit.engine.signal.removeEventListener("abort", cancel);
    announced.end();
  }
}

async function resultOf(kit: BuildKit, build: Build, request: SolveRequest): Promise<Result> {
  if (request.Frontend !== "") return kit.frontend(build, request.Frontend, request.FrontendAttrs, build.inputs);
  const definition = request.Definition;
  if (!definition || definition.def.length === 0) return build.returned;
  if (definition.Source) build.sources.push(definition.Source);
  return { ...emptyResult(), ref: build.session.load(definition) };
}

/** The SBOM that the client asked for, where no frontend has made it. */
async function scan({ session, host }: Build, { FrontendAttrs: attrs }: SolveRequest, result: Result): Promise<void> {
  const { resolveModeOf, sbomOf, scanResult } = await import("../../build/index.ts");
  const sbom = sbomOf(attrs);
  if (sbom) await scanResult({ host, session }, result, sbom, { mode: resolveModeOf(attrs), useCache: attrs["no-cache"] !== "" });
}

async function exportAll(
  kit: BuildKit,
  build: Build,
  request: SolveRequest,
  result: Result,
  client: Session | undefined,
): Promise<Record<string, string>> {
  const exporters = exportersOf(request);
  const answer: Record<string, string> = {};
  const cacheExports = cacheOptions(request.Cache?.Exports ?? []);
  // Before the exports begin, so that a step's failure is its own.
  await Promise.all([result.ref, ...result.refs.values()].map((each) => each?.evaluate()));
  const inline = cacheExports.some(({ type }) => type === "inline");
  const common = { engine: kit.engine, session: client, signal: build.signal };
  for (const [id, { type, attrs }] of exporters.entries()) {
    const sink = sinkOf({ ...common, id, type, attrs });
    const exporter = { type, attrs: inline ? { ...attrs, "inline-cache": "true" } : attrs };
    Object.assign(answer, await build.session.export(result, exporter, sink));
  }
  for (const option of cacheExports) {
    if (option.type === "inline") continue;
    const sink = sinkOf({ ...common, id: 0, type: "cache", attrs: option.attrs });
    try {
      Object.assign(answer, await build.session.exportCache(result, option, sink));
    } catch (error) {
      if (!isTrue(option.attrs["ignore-error"])) throw error;
      kit.engine.log("warn", `exporting the build cache: ${messageOf(error)}`);
    }
  }
  return answer;
}
