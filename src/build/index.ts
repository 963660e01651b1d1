// The image builder: from a Dockerfile and a context to the layers and the config of an image. It must never know of the Engine API, of how images are named or
// networks made: what it needs of the engine it is given as functions (host.ts). No protocol at its door: functions; the doors (POST /build) are the engine's.
//
// Nouns and their life. A *Dockerfile* (dockerfile/) is text, then typed instructions in stages. A *graph* (graph/) says what is to be done, in the shape of
// BuildKit's LLB: vertices with one operation each, named by the digest of what they say. The *solver* (solve/) makes a *tree* (layers and their chain id) of
// each vertex, once, side by side where nothing hinders; the *cache* remembers which key made which layer. A *context* is the directory that a client sent;
// it goes away with its build.
//
// Worked sequence:
//
//   const builder = createBuilder(host);                    // host: the manager's clients, a database, directories, leases
//   await builder.recover();                                // what a killed engine left is taken away
//   const id = await builder.build(request, { resolveImage, prepareStep }, progress, signal, async (image, lease) => store(image, lease));
//   await builder.prune(() => false);                       // forgets all that was cached
//
// A failed step throws; explain(error) says the instruction's lines with a caret and the command's exit status. Nothing is left of a build that failed or was
// aborted but what its finished steps put into the cache.
export { type Builder, type BuildFailure, type BuildProgress, type BuildRequest, type BuiltImage, createBuilder } from "./builder.ts";
export { DockerfileError, parseDockerfile } from "./dockerfile/index.ts";
export { frontend } from "./frontend/index.ts";
export { remoteContext } from "./frontend/remote.ts";
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
export type { BuildEvent, KeyPart, LogEvent, MissEvent, StatusEvent, VertexEvent, WarningEvent } from "./progress.ts";
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
