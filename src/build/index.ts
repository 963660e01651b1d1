// The image builder: from LLB (BuildKit's build graph), or a Dockerfile that is made into it, to the layers and the config of an image. It must never know of the
// Engine API, of how images are named or networks made: what it needs of the engine it is given as functions (host.ts). No protocol at its door: functions; the
// doors (POST /build, BuildKit's gRPC) are the engine's.
//
// Nouns and their life. A *Dockerfile* (dockerfile/) is text, then typed instructions in stages; the *frontend* (frontend/) makes LLB of it. A *graph* (graph/) is
// that LLB: vertices with one operation each, named by the digest of their bytes; an *edge* is an output of one. The *solver* (solve/) makes a *tree* of each edge
// that somebody wants, once, side by side where nothing hinders: a stack of layers, whose files are made to be here only when somebody wants them, or a
// directory that came from outside (sources/). The *cache* remembers which key made which layers; a key says what was done to what content, never how that came to
// be. A *session* is one build: definitions go in, *references* to edges come out; they are looked into, entered, exported (export/), and what the cache
// knows of them goes to other builders and comes from them (remote/). A session keeps what it made by a lease, and leaves nothing but the cache.
//
// A *policy* (policy.ts) says what may come from outside, and what comes in its place, before anything is looked up or solved. A *scanner* (frontend/sbom.ts) is an
// image that reads a result and writes what is in it.
//
// Worked sequence, as a door that speaks LLB goes through it:
//
//   const builder = createBuilder(host);                    // host: the manager's clients, a database, directories, leases
//   await builder.recover();                                // what a killed engine left is taken away
//   await using session = await builder.open({ onEvent, signal, noCache: false, entitlements: new Set() }, buildHost);
//   const result = await frontend({ name: "dockerfile.v0", attrs, session, host: buildHost, signal, onWarning });    // or { ref: session.load(definition), … }
//   const answer = await session.export(result, { type: "image", attrs: { name: "app:1" } }, sink);
//   await builder.reclaim({ keepDurationMs: 24 * 3600_000 });                                       // forgets what was not used for a day
//
// The classic door has it in one: builder.build(request, buildHost, progress, signal, finish). A failed step throws; the error has the vertex' digest in `vertex`;
// explain(error) says the instruction's lines with a caret and the command's exit status. Nothing is left of a build that failed or was aborted but what its
// finished steps put into the cache, and, where the session asked for it, the failed step until it is released (session.failedStep).
export { type Builder, type BuildFailure, type BuildProgress, type BuildRequest, type BuiltImage, createBuilder } from "./builder.ts";
export { DockerfileError, parseDockerfile } from "./dockerfile/index.ts";
export { checkExport } from "./export/index.ts";
export { imageDefinition } from "./frontend/context.ts";
export { foreignFrontend, frontend } from "./frontend/index.ts";
export { resolveModeOf, sbomOf } from "./frontend/options.ts";
export { remoteContext } from "./frontend/remote.ts";
export { scanResult } from "./frontend/sbom.ts";
export type { FrontendRequest } from "./frontend/types.ts";
export type {
  BaseImage,
  BuilderHost,
  BuildHost,
  ImageRequest,
  Layer,
  Lease,
  LocalDirectory,
  LocalRequest,
  PreparedStep,
  Status,
  StepRequest,
} from "./host.ts";
export { createPolicy, type SourcePolicy, withPolicy } from "./policy.ts";
export type { BuildEvent, KeyPart, LogEvent, MissEvent, StatusEvent, VertexEvent, WarningEvent } from "./progress.ts";
export { checkCacheExport } from "./remote/export.ts";
export type {
  Attestation,
  BuildSession,
  CacheOption,
  ContainerRequest,
  ExportAnswer,
  ExportedImage,
  ExportSink,
  FailedStep,
  FileInfo,
  FileTree,
  ProcessRequest,
  Ref,
  Result,
  SessionContainer,
  SessionOptions,
  StepProcess,
} from "./session.ts";
export type { CacheRecord, RecordKind } from "./solve/cache.ts";
export type { PruneOptions, PruneResult, UsageRecord } from "./solve/prune.ts";
