// Provenance: what went into a build, as SLSA says it (https://slsa.dev/provenance, v0.2 and v1; BuildKit docs, "SLSA definitions").
import { NetMode, type Source } from "../../gen/pb_pb.ts";
import { invalidArgument } from "../../lib/errors.ts";
import { parseBool } from "../../lib/parse-bool.ts";
import { formatPlatform, hostPlatform, type Platform } from "../../oci/index.ts";
import { attestsOf } from "../attests.ts";
import type { Edge, Graph } from "../graph/llb.ts";
import { platformOf } from "../solve/sources.ts";
import type { Solved } from "../solve/vertex.ts";
import { imagePurl, type Statement } from "./attestations.ts";
import { opJson } from "./op-json.ts";

export interface ProvenanceOptions {
  mode: "min" | "max";
  version: "v0.2" | "v1";
  builderId: string;
  /** Only where the export is an image. */
  inlineOnly: boolean;
  reproducible: boolean;
}

/** What of a provenance is wanted; undefined: none. */
export function provenanceOptions(attrs: Readonly<Record<string, string>>): ProvenanceOptions | undefined {
  const fields = attestsOf(attrs).get("provenance");
  if (!fields) return undefined;
  const options: ProvenanceOptions = { mode: "max", version: "v0.2", builderId: "", inlineOnly: false, reproducible: false };
  for (const [name, value] of fields) {
    if (name === "mode") {
      if (!["min", "max", "full"].includes(value)) throw invalidArgument(`invalid mode ${JSON.stringify(value)}`);
      options.mode = value === "min" ? "min" : "max";
    } else if (name === "version") {
      const version = value.replace(/^v/, "");
      if (version !== "0.2" && version !== "1" && version !== "1.0") throw invalidArgument(`invalid provenance version ${value}`);
      options.version = version === "0.2" ? "v0.2" : "v1";
    } else if (name === "builder-id") options.builderId = value;
    else if (name === "inline-only") options.inlineOnly = parseBool(value) === true;
    else if (name === "reproducible") options.reproducible = parseBool(value) === true;
  }
  return options;
}

/** All that leads to an edge, inputs first. */
function closure(graph: Graph, result: Edge | undefined): string[] {
  const order: string[] = [];
  const seen = new Set<string>();
  const pending: { digest: string; next: number }[] = result ? [{ digest: result.digest, next: 0 }] : [];
  if (result) seen.add(result.digest);
  for (let top = pending.at(-1); top; top = pending.at(-1)) {
    const input = graph.vertices.get(top.digest)?.inputs[top.next++];
    if (!input) {
      order.push(top.digest);
      pending.pop();
    } else if (!seen.has(input.digest)) {
      seen.add(input.digest);
      pending.push({ digest: input.digest, next: 0 });
    }
  }
  return order;
}

const HOST_ONLY = new Set(["cgroup-parent", "image-resolve-mode", "platform", "cache-imports"]);
/** An image's name without the digest that looking it up gave to it: a digest alone was written. */
const asWritten = (ref: string) => ref.replace(/(:[\w.-]+)@sha256:[0-9a-f]{64}$/, "$1");
const withoutPassword = (text: string) => text.replace(/^([a-z+]+:\/\/)[^/@]*@/i, "$1xxxxx@");

export interface ProvenanceInput {
  graph: Graph;
  solved: ReadonlyMap<string, Solved>;
  result: Edge | undefined;
  platform: Platform | undefined;
  request: { frontend: string; attrs: Readonly<Record<string, string>> };
  source: Source | undefined;
  id: string;
  started: Date;
  finished: Date;
}

export function provenance(options: ProvenanceOptions, input: ProvenanceInput): Statement {
  const { graph, solved, request } = input;
  const max = options.mode === "max";
  const order = closure(graph, input.result);
  const materials: { uri: string; digest: Record<string, string> }[] = [];
  const locals = new Set<string>();
  const secrets = new Map<string, boolean>();
  const ssh = new Map<string, boolean>();
  let network = false;
  for (const digest of order) {
    const { op } = graph.vertices.get(digest)!;
    if (op.op.case === "source") {
      const { identifier } = op.op.value;
      const { material } = solved.get(digest) ?? {};
      if (identifier.startsWith("local://")) locals.add(identifier.slice("local://".length));
      if (!material) continue;
      const uri = identifier.startsWith("docker-image://")
        ? imagePurl(asWritten(material.uri), platformOf(op.platform) ?? input.platform ?? hostPlatform())
        : withoutPassword(material.uri);
      const [algorithm = "", hex = ""] = material.digest.split(":");
      if (!materials.some((each) => each.uri === uri)) materials.push({ uri, digest: { [algorithm]: hex } });
    } else if (op.op.case === "exec") {
      if (op.op.value.network !== NetMode.NONE) network = true;
      for (const { secretOpt, SSHOpt } of op.op.value.mounts) {
        if (secretOpt) secrets.set(secretOpt.ID, secretOpt.optional);
        if (SSHOpt) ssh.set(SSHOpt.ID, SSHOpt.optional);
      }
      for (const { ID, optional } of op.op.value.secretenv) secrets.set(ID, optional);
    }
  }
  // What the frontend read of the client's files counts, too.
  for (const digest of solved.keys()) {
    const { op } = graph.vertices.get(digest)?.op ?? {};
    if (op?.case === "source" && op.value.identifier.startsWith("local://")) locals.add(op.value.identifier.slice("local://".length));
  }
  const contextKey = request.attrs.contextkey || "context";
  const context = request.attrs[contextKey] ?? "";
  const apart = new Set([contextKey, "filename"]);
  const given = Object.entries(request.attrs).filter(
    ([name]) => !HOST_ONLY.has(name) && !apart.has(name) && !/^(attest:|vcs:|jubako\.)/.test(name),
  );
  const shown = max ? given : given.filter(([name]) => !/^(build-arg|label):/.test(name));
  const args = Object.fromEntries(shown.map(([name, value]) => [name, /^context:/.test(name) ? withoutPassword(value) : value]));
  const list = (map: Map<string, boolean>) => [...map].map(([id, optional]) => ({ id, ...(optional ? { optional } : {}) }));
  const parameters = {
    ...(request.frontend ? { frontend: request.frontend } : {}),
    ...(Object.keys(args).length > 0 ? { args } : {}),
    ...(max && secrets.size > 0 ? { secrets: list(secrets) } : {}),
    ...(max && ssh.size > 0 ? { ssh: list(ssh) } : {}),
    ...(locals.size > 0 ? { locals: [...locals].sort().map((name) => ({ name })) } : {}),
  };
  const uri = context === "" ? undefined : withoutPassword(context);
  const configured = materials.find((each) => each.uri === uri?.replace(/#.*$/, "") || each.uri === uri)?.digest;
  const configSource = {
    ...(uri === undefined ? {} : { uri }),
    ...(configured ? { digest: configured } : {}),
    ...(request.attrs.filename ? { path: request.attrs.filename } : {}),
  };
  const names = new Map(order.map((digest, i) => [digest, `step${i}`]));
  const steps: Record<string, unknown>[] = order.map((digest, i) => {
    const vertex = graph.vertices.get(digest)!;
    const inputs = vertex.inputs.map((each) => `${names.get(each.digest)}:${each.index}`);
    return { id: `step${i}`, op: opJson(vertex.op), ...(inputs.length > 0 ? { inputs } : {}) };
  });
  // The last one says what the result is, as in LLB.
  if (input.result)
    steps.push({ id: `step${order.length}`, op: { Op: {} }, inputs: [`${names.get(input.result.digest)}:${input.result.index}`] });
  const buildConfig = { llbDefinition: steps, digestMapping: Object.fromEntries(names) };
  const environment = { platform: formatPlatform(hostPlatform()) };
  const complete = {
    parameters: request.frontend !== "" && shown.length === given.length,
    environment: true,
    materials: locals.size === 0,
  };
  const hermetic = complete.materials && !network;
  const source = input.source && {
    locations: Object.fromEntries(
      Object.entries(input.source.locations).flatMap(([digest, { locations }]) => {
        const name = names.get(digest);
        const ranges = locations.map(({ ranges: each }) => ({
          ranges: each.map(({ start, end }) => ({ start: { line: start?.line ?? 0 }, end: { line: end?.line ?? 0 } })),
        }));
        return name ? [[name, { locations: ranges }]] : [];
      }),
    ),
    infos: input.source.infos.map(({ filename, language, data }) => ({
      filename,
      ...(language ? { language } : {}),
      data: Buffer.from(data).toString("base64"),
    })),
  };
  const layers = Object.fromEntries(
    order.flatMap((digest, i) => {
      const made = solved.get(digest);
      const found = made?.image?.layers ?? made?.added ?? [];
      return found.length > 0 ? [[`step${i}:0`, [found.map(({ descriptor }) => descriptor)]]] : [];
    }),
  );
  const vcs = Object.fromEntries(
    Object.entries(request.attrs)
      .filter(([name, value]) => name.startsWith("vcs:") && value !== "")
      .map(([name, value]) => [name.slice(4), name === "vcs:source" ? withoutPassword(value) : value]),
  );
  const own = {
    ...(Object.keys(vcs).length > 0 ? { vcs } : {}),
    ...(max && source ? { source } : {}),
    ...(max && Object.keys(layers).length > 0 ? { layers } : {}),
  };
  const [startedOn, finishedOn] = [input.started.toISOString(), input.finished.toISOString()];
  const base = { subjects: [], path: "provenance.json", core: undefined };
  if (options.version === "v1") {
    const { path, ...rest } = configSource;
    return {
      ...base,
      predicateType: "https://slsa.dev/provenance/v1",
      predicate: {
        buildDefinition: {
          buildType: "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md",
          externalParameters: { configSource: { ...rest, ...(path ? { path } : {}) }, request: parameters },
          internalParameters: { ...(max ? { buildConfig } : {}), builderPlatform: environment.platform },
          resolvedDependencies: materials,
        },
        runDetails: {
          builder: { id: options.builderId },
          metadata: {
            invocationId: input.id,
            startedOn,
            finishedOn,
            buildkit_metadata: own,
            ...(hermetic ? { buildkit_hermetic: true } : {}),
            buildkit_completeness: { request: complete.parameters, resolvedDependencies: complete.materials },
            ...(options.reproducible ? { buildkit_reproducible: true } : {}),
          },
        },
      },
    };
  }
  const { path, ...rest } = configSource;
  return {
    ...base,
    predicateType: "https://slsa.dev/provenance/v0.2",
    predicate: {
      builder: { id: options.builderId },
      buildType: "https://mobyproject.org/buildkit@v1",
      materials,
      invocation: { configSource: { ...rest, ...(path ? { entryPoint: path } : {}) }, parameters, environment },
      ...(max ? { buildConfig } : {}),
      metadata: {
        buildInvocationID: input.id,
        buildStartedOn: startedOn,
        buildFinishedOn: finishedOn,
        completeness: complete,
        reproducible: options.reproducible,
        ...(hermetic ? { "https://mobyproject.org/buildkit@v1#hermetic": true } : {}),
        "https://mobyproject.org/buildkit@v1#metadata": own,
      },
    },
  };
}
