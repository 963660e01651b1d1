// LLBBridge, what a frontend may ask while its build runs: frontends as buildx' own client, which names its build in the metadata.
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import type { Attestation, Ref, Result, SourcePolicy } from "../../build/index.ts";
import { SolveSchema } from "../../gen/errdefs_pb.ts";
import {
  AttestationKind,
  type AttestationsSchema,
  InTotoSubjectKind,
  type LLBBridge,
  type Ref as RefMessage,
  type RefSchema,
  type Result as ResultMessage,
  type ResultSchema,
  type SolveRequest,
} from "../../gen/moby/buildkit/v1/frontend_pb.ts";
import type { Policy } from "../../gen/moby/buildkit/v1/sourcepolicy_pb.ts";
import { OpSchema, type Platform } from "../../gen/pb_pb.ts";
import { invalidArgument, notFound, unimplemented } from "../../lib/errors.ts";
import type { CallContext, Service } from "../../lib/grpc/services.ts";
import { formatPlatform, formatReference, MAX_CONFIG, parseReference, withDefaultTag } from "../../oci/index.ts";
import { readBlob } from "../images/content.ts";
import type { Build } from "./builds.ts";
import { FRONTEND_CAPS, LLB_CAPS } from "./caps.ts";
import { execProcess, newContainer, releaseContainer } from "./containers.ts";
import { toConnectError } from "./errors.ts";
import { statOf } from "./filesync.ts";
import type { BuildKit } from "./index.ts";
import { emptyResult } from "./solve.ts";
import { workerRecord } from "./worker.ts";

/** It travels in headers. */
const MAX_SOLVE = 24 << 10;

const platformText = (platform: Platform | undefined): string | undefined =>
  platform?.OS
    ? formatPlatform({
        os: platform.OS,
        architecture: platform.Architecture,
        ...(platform.Variant ? { variant: platform.Variant } : {}),
      })
    : undefined;

const modeOf = (mode: string) => (mode === "pull" || mode === "local" ? mode : "default");

/** What a client returned, with the references that it was given. */
function resultOf(build: Build, message: ResultMessage): Result {
  const refOf = (ref: RefMessage | undefined): Ref | undefined => {
    if (!ref) return undefined;
    if (ref.id !== "") return build.reference(ref.id);
    return ref.def && ref.def.def.length > 0 ? build.session.load(ref.def) : undefined;
  };
  const result = emptyResult();
  result.metadata = new Map(Object.entries(message.metadata));
  const { result: inner } = message;
  if (inner.case === "ref") result.ref = refOf(inner.value);
  else if (inner.case === "refDeprecated") result.ref = build.reference(inner.value);
  else if (inner.case === "refs") for (const [name, ref] of Object.entries(inner.value.refs)) result.refs.set(name, refOf(ref));
  else if (inner.case === "refsDeprecated")
    for (const [name, id] of Object.entries(inner.value.refs)) result.refs.set(name, build.reference(id));
  for (const [name, { attestation }] of Object.entries(message.attestations)) {
    result.attestations.set(
      name,
      attestation.map(
        (each): Attestation => ({
          kind: each.kind === AttestationKind.BUNDLE ? "bundle" : "in-toto",
          ref: refOf(each.ref),
          path: each.path,
          metadata: new Map(Object.entries(each.metadata)),
          predicateType: each.inTotoPredicateType,
          subjects: each.inTotoSubjects.map(({ kind, name: subject, digest }) => ({
            kind: kind === InTotoSubjectKind.RAW ? "raw" : "self",
            name: subject,
            digest,
          })),
        }),
      ),
    );
  }
  return result;
}

function messageOfResult(build: Build, result: Result): MessageInitShape<typeof ResultSchema> {
  const source = build.sources.at(-1);
  const refOf = (ref: Ref | undefined): MessageInitShape<typeof RefSchema> =>
    ref?.edge ? { id: build.enter(ref), def: ref.definition(source) } : { id: "" };
  const attestations: Record<string, MessageInitShape<typeof AttestationsSchema>> = {};
  for (const [name, list] of result.attestations) {
    attestations[name] = {
      attestation: list.map((each) => ({
        kind: each.kind === "bundle" ? AttestationKind.BUNDLE : AttestationKind.IN_TOTO,
        metadata: Object.fromEntries(each.metadata),
        ref: refOf(each.ref),
        path: each.path,
        inTotoPredicateType: each.predicateType,
        inTotoSubjects: each.subjects.map(({ kind, name: subject, digest }) => ({
          kind: kind === "raw" ? InTotoSubjectKind.RAW : InTotoSubjectKind.SELF,
          name: subject,
          digest,
        })),
      })),
    };
  }
  const inner =
    result.refs.size > 0
      ? { case: "refs" as const, value: { refs: Object.fromEntries([...result.refs].map(([name, ref]) => [name, refOf(ref)])) } }
      : { case: "ref" as const, value: refOf(result.ref) };
  return { result: inner, metadata: Object.fromEntries(result.metadata), attestations };
}

/** What a client needs to enter the step that failed: the op, and references to what it worked on and to what it left. */
function keptStep(build: Build, error: unknown): { type: string; value: Uint8Array }[] {
  const step = build.session.failedStep(error);
  if (!step) return [];
  const ids = (refs: readonly (Ref | undefined)[]) => refs.map((ref) => build.enter(ref));
  const op = create(OpSchema, { op: { case: "exec", value: step.op } });
  const solve = create(SolveSchema, { inputIDs: ids(step.inputs), mountIDs: ids(step.mounts), op });
  const value = toBinary(SolveSchema, solve);
  return value.length > MAX_SOLVE ? [] : [{ type: "errdefs.Solve", value }];
}

/** `own`: the one build of a frontend that talks over a connection of its own. */
export function gatewayService(kit: BuildKit, own?: Build): Service<typeof LLBBridge> {
  /** Calls `work` in the build that the caller names; its failures become the protocol's. */
  async function within<T>(context: CallContext, work: (build: Build) => Promise<T>): Promise<T> {
    let build: Build | undefined;
    try {
      const ref = context.header("buildkit-controlapi-buildid");
      if (!own && !ref) throw invalidArgument("the metadata buildkit-controlapi-buildid is missing");
      build = own ?? (await kit.builds.get(ref!, context.signal));
      return await work(build);
    } catch (error) {
      const failure = toConnectError(error, build?.sources);
      if (build) failure.details.push(...keptStep(build, error));
      throw failure;
    }
  }
  const refOf = (build: Build, id: string): Ref => {
    const ref = build.reference(id);
    if (!ref) throw notFound("the reference is an empty tree");
    return ref;
  };

  async function solve(build: Build, request: SolveRequest): Promise<Result> {
    if (request.Frontend !== "") {
      kit.history.describe(build.ref, request.Frontend, request.FrontendOpt);
      return kit.frontend(
        await narrowed(build, request.SourcePolicies),
        request.Frontend,
        request.FrontendOpt,
        new Map(Object.entries(request.FrontendInputs)),
      );
    }
    const definition = request.Definition;
    if (!definition || definition.def.length === 0) return emptyResult();
    if (definition.Source) build.sources.push(definition.Source);
    return { ...emptyResult(), ref: build.session.load(definition, await policyWith(build, request.SourcePolicies)) };
  }

  async function policyWith({ policy }: Build, more: readonly Policy[]): Promise<SourcePolicy | undefined> {
    if (more.length === 0) return policy;
    return policy ? policy.with(more) : (await import("../../build/index.ts")).createPolicy(more);
  }

  /** The build as a request sees it that has rules of its own. */
  async function narrowed(build: Build, more: readonly Policy[]): Promise<Build> {
    if (more.length === 0) return build;
    const { createPolicy, withPolicy } = await import("../../build/index.ts");
    const policy = (await policyWith(build, more))!;
    const { session } = build;
    return {
      ...build,
      policy,
      host: withPolicy(build.host, createPolicy(more)),
      session: { ...session, load: (definition) => session.load(definition, policy) },
    };
  }

  interface Wanted {
    Platform?: Platform | undefined;
    ResolveMode: string;
    SourcePolicies: Policy[];
  }
  async function resolveConfig(build: Build, ref: string, { Platform: platform, ResolveMode, SourcePolicies }: Wanted) {
    const { host } = await narrowed(build, SourcePolicies);
    const image = await host.resolveImage(ref, platformText(platform), modeOf(ResolveMode));
    const name = formatReference(withDefaultTag(parseReference(image.name ?? ref)));
    return { image, name, config: image.raw ?? (await readBlob(kit.engine.manager, image.id, MAX_CONFIG)) };
  }

  return {
    ping: (_, context) =>
      within(context, async () => ({ FrontendAPICaps: FRONTEND_CAPS, LLBCaps: LLB_CAPS, Workers: [workerRecord(kit.engine)] })),
    resolveImageConfig: (request, context) =>
      within(context, async (build) => {
        const { image, name, config } = await resolveConfig(build, request.Ref, request);
        return { Digest: image.digest ?? "", Config: config, Ref: name };
      }),
    resolveSourceMeta: (request, context) =>
      within(context, async (build) => {
        const identifier = request.Source?.identifier ?? "";
        const match = /^docker-image:\/\/(.+)$/.exec(identifier);
        if (!match) throw unimplemented(`metadata of sources of the kind ${identifier.split(":")[0]}`);
        const { image, name, config } = await resolveConfig(build, match[1]!, request);
        return {
          Source: { ...request.Source!, identifier: `docker-image://${name}` },
          Image: { Digest: image.digest ?? "", ...(request.Image?.NoConfig ? {} : { Config: config }) },
        };
      }),
    solve: (request, context) =>
      within(context, async (build) => {
        const result = await solve(build, request);
        if (request.Evaluate) await Promise.all([result.ref, ...result.refs.values()].map((each) => each?.evaluate()));
        if (!request.allowResultReturn) return { ref: result.ref?.edge ? build.enter(result.ref) : "" };
        return { result: messageOfResult(build, result) };
      }),
    readFile: (request, context) =>
      within(context, async (build) => {
        const range = request.Range && { offset: Number(request.Range.Offset), length: Number(request.Range.Length) };
        return { Data: await refOf(build, request.Ref).readFile(request.FilePath, range) };
      }),
    readDir: (request, context) =>
      within(context, async (build) => {
        const list = await refOf(build, request.Ref).readDir(request.DirPath, request.IncludePattern || undefined);
        return { entries: list.map(statOf) };
      }),
    statFile: (request, context) =>
      within(context, async (build) => ({ stat: statOf(await refOf(build, request.Ref).stat(request.Path)) })),
    evaluate: (request, context) =>
      within(context, async (build) => {
        await build.reference(request.Ref)?.evaluate();
        return {};
      }),
    inputs: (_, context) => within(context, async (build) => ({ Definitions: Object.fromEntries(build.inputs) })),
    warn: (request, context) =>
      within(context, async (build) => {
        build.tell({
          kind: "warning",
          vertex: request.digest,
          level: Number(request.level),
          short: Buffer.from(request.short).toString(),
          detail: request.detail.map((line) => Buffer.from(line).toString()),
          url: request.url,
          source: request.info,
          ranges: request.ranges,
        });
        return {};
      }),
    newContainer: (request, context) =>
      within(context, async (build) => {
        await newContainer(build, request);
        return {};
      }),
    releaseContainer: (request, context) =>
      within(context, async (build) => {
        await releaseContainer(build, request.ContainerID);
        return {};
      }),
    async *execProcess(messages, context) {
      const build = await within(context, async (found) => found);
      yield* execProcess(build, messages);
    },
    return: (request, context) =>
      within(context, async (build) => {
        if (request.error) build.finish({ error: request.error });
        else build.finish({ result: request.result ? resultOf(build, request.result) : emptyResult() });
        return {};
      }),
  };
}
