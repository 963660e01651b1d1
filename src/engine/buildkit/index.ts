// BuildKit's doors: POST /grpc, where the engine is the gRPC server (moby.buildkit.v1.Control, and LLBBridge for clients that are their own frontend), and POST
// /session, where it is the client of what the docker CLI offers to its build: files, secrets, an ssh agent, credentials, places for outputs. Both begin as
// HTTP/1.1 requests that are upgraded to HTTP/2 (h2c); a client that speaks HTTP/2 at once (buildctl) is served on the same sockets. It knows protocols and clients; how something is built, cached and exported it leaves to the builder (src/build), and
// the names of images to the images resource. It must never know of Dockerfiles.
//
// Nouns and their life. A *session* is a client's connection on which we call (sessions.ts); it lasts as long as its connection. A *build* (builds.ts) has a
// reference of the client's choosing; Control.Solve begins and ends it, and it ends with the client, the session, a cancel, or the engine, leaving nothing. Its
// *progress* (status.ts) may be followed from its beginning by anyone who knows the reference. A *local* directory (locals.ts) is what a client sent, kept between
// builds. *History* is what builds were, a bounded number of them in the engine's database.
//
// Worked sequence, `docker buildx build -t x --secret id=s .`:
//
//   POST /session (X-Docker-Expose-Session-Uuid: S)    → 101; the client serves FileSync, Secrets, Auth on it
//   POST /grpc                                         → 101; Control.Solve{ Ref: R, Session: S, Exporters: [moby] } begins build R and waits for its result
//     Control.Status{ R }                              → vertexes, statuses, logs, warnings as they come
//     LLBBridge.Solve{ Frontend: dockerfile.v0 }       (metadata buildkit-controlapi-buildid: R) → a reference; our frontend read the Dockerfile over S
//     LLBBridge.Return{ result }                       → the build exports it; steps run now, and ask S for secrets
//   Control.Solve's answer: containerimage.digest, containerimage.config.digest, image.name
import type { Duplex } from "node:stream";
import type { Builder, Result } from "../../build/index.ts";
import { Content } from "../../gen/containerd/services/content/v1_pb.ts";
import { Health, HealthCheckResponse_ServingStatus } from "../../gen/grpc/health/v1_pb.ts";
import { LLBBridge } from "../../gen/moby/buildkit/v1/frontend_pb.ts";
import { Control } from "../../gen/moby/buildkit/v1_pb.ts";
import type { Definition } from "../../gen/pb_pb.ts";
import { invalidArgument } from "../../lib/errors.ts";
import type { Engine } from "../context.ts";
import { type Answer, type Call, hijacked } from "../route.ts";
import { openArchive } from "./archive.ts";
import { blobService } from "./blobs.ts";
import { type Build, type Builds, createBuilds } from "./builds.ts";
import { createGrpcServer } from "./connection.ts";
import { controlService } from "./control.ts";
import { gatewayService } from "./gateway.ts";
import { createHistory, type History } from "./history.ts";
import type { Locals } from "./locals.ts";
import { createSessions, type Sessions, sessionHeaders } from "./sessions.ts";
import { createUploads, type Uploads } from "./uploads.ts";

export { createLocals, type Locals } from "./locals.ts";
export { withLocals } from "./usage.ts";

export interface BuildKit {
  readonly engine: Engine;
  readonly sessions: Sessions;
  readonly builds: Builds;
  readonly history: History;
  readonly locals: Locals;
  readonly uploads: Uploads;
  readonly builder: Builder;
  /** Runs one of our frontends in a build. */
  frontend(build: Build, name: string, attrs: Record<string, string>, inputs: ReadonlyMap<string, Definition>): Promise<Result>;
  /** POST /grpc. */
  grpc(call: Call): Answer;
  /** gRPC on a connection of its own. */
  serve(connection: Duplex): void;
  /** POST /session. */
  session(call: Call): Answer;
  close(): void;
}

function upgraded(call: Call): void {
  const { upgrade = "" } = call.headers;
  if (upgrade === "") throw invalidArgument("no upgrade proto in request");
  if (upgrade !== "h2c") throw invalidArgument(`protocol ${upgrade} not supported`);
}

export function createBuildKit(engine: Engine, builder: Builder, locals: Locals): BuildKit {
  const kit: BuildKit = {
    engine,
    builder,
    sessions: createSessions(),
    builds: createBuilds(),
    history: createHistory(openArchive(engine.db), (message) => engine.log("warn", message)),
    locals,
    uploads: createUploads(),
    async frontend(build, name, attrs, inputs) {
      const { foreignFrontend, frontend } = await import("../../build/index.ts");
      const { host, signal } = build;
      build.session.describe(name, attrs);
      const load = (definition: Definition) => {
        if (definition.Source) build.sources.push(definition.Source);
        return build.session.load(definition);
      };
      try {
        return await frontend({ name, attrs, inputs, session: { load }, host, signal, onWarning: (warning) => build.tell(warning) });
      } catch (error) {
        const foreign = foreignFrontend(error);
        if (!foreign) throw error;
        const { runFrontend } = await import("./foreign.ts");
        return runFrontend(kit, build, foreign.source, { ...attrs, ...foreign.attrs }, inputs);
      }
    },
    grpc(call) {
      upgraded(call);
      server.accept(call.hijack("application/vnd.docker.raw-stream"));
      return hijacked;
    },
    serve: (connection) => server.accept(connection),
    session(call) {
      upgraded(call);
      kit.sessions.open(
        sessionHeaders((name) => call.headers[name]),
        () => call.hijack("application/vnd.docker.raw-stream"),
      );
      return hijacked;
    },
    close() {
      server.close();
      kit.sessions.close();
    },
  };
  const server = createGrpcServer((router) => {
    router.service(Control, controlService(kit));
    router.service(LLBBridge, gatewayService(kit));
    router.service(Content, blobService(kit));
    router.service(Health, { check: async () => ({ status: HealthCheckResponse_ServingStatus.SERVING }) });
  });
  engine.signal.addEventListener("abort", () => kit.close(), { once: true });
  return kit;
}
