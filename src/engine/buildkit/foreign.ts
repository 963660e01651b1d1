// Frontends that are images of their own: a container beside the build that asks for what LLBBridge has, by gRPC over its standard input and output, and answers with
// Return (BuildKit docs, "gateway.v0").
import { Duplex } from "node:stream";
import { create } from "@bufbuild/protobuf";
import type { Result, StepProcess } from "../../build/index.ts";
import type { Status } from "../../gen/google/rpc/status_pb.ts";
import { Health, HealthCheckResponse_ServingStatus } from "../../gen/grpc/health/v1_pb.ts";
import { LLBBridge } from "../../gen/moby/buildkit/v1/frontend_pb.ts";
import { type Definition, MountSchema } from "../../gen/pb_pb.ts";
import { failedPrecondition, invalidArgument, unimplemented } from "../../lib/errors.ts";
import { parseBool } from "../../lib/parse-bool.ts";
import { formatReference, parseReference, withDefaultTag } from "../../oci/index.ts";
import type { Build } from "./builds.ts";
import { createGrpcServer } from "./connection.ts";
import { ClientFailure } from "./errors.ts";
import { gatewayService } from "./gateway.ts";
import type { BuildKit } from "./index.ts";
import { workerRecord } from "./worker.ts";

/** Frontends may call frontends. */
const MAX_DEPTH = 8;
/** Of what it says besides: the end is kept for an error. */
const MAX_SAID = 4 << 10;

/** What BuildKit's clients read of their environment. */
function environmentOf(kit: BuildKit, attrs: Readonly<Record<string, string>>): string[] {
  const { ID, Labels, platforms = [], BuildkitVersion } = workerRecord(kit.engine);
  const Platforms = platforms.map(({ OS = "", Architecture = "", Variant = "" }) => ({
    architecture: Architecture,
    os: OS,
    ...(Variant ? { variant: Variant } : {}),
  }));
  return [
    ...Object.entries(attrs).map(([name, value], i) => `BUILDKIT_FRONTEND_OPT_${i}=${name}=${value}`),
    "BUILDKIT_SESSION_ID=",
    `BUILDKIT_WORKERS=${JSON.stringify([{ ID, Labels, Platforms, GCPolicy: null, BuildkitVersion, CDIDevices: null }])}`,
    "BUILDKIT_EXPORTEDPRODUCT=jubako",
  ];
}

const listed = (text: string | undefined) => new Set((text ?? "").split(",").filter(Boolean));

/** A process' standard input and output as one stream. */
function stdioOf(started: Promise<StepProcess>): { stream: Duplex; output(bytes: Uint8Array): void } {
  const stream: Duplex = new Duplex({
    read() {},
    write(chunk: Buffer, _, done) {
      started.then((process) => process.write(chunk)).then(() => done(), done);
    },
    final(done) {
      started.then((process) => process.closeInput()).then(() => done(), done);
    },
  });
  stream.on("error", () => {});
  return { stream, output: (bytes) => void (stream.destroyed || stream.push(Buffer.from(bytes))) };
}

export async function runFrontend(
  kit: BuildKit,
  build: Build,
  source: string,
  attrs: Readonly<Record<string, string>>,
  inputs: ReadonlyMap<string, Definition>,
): Promise<Result> {
  if (build.depth >= MAX_DEPTH) throw failedPrecondition(`frontends are nested more than ${MAX_DEPTH} deep`);
  let ref: string;
  try {
    ref = formatReference(withDefaultTag(parseReference(source)));
  } catch (error) {
    throw invalidArgument(`invalid frontend image ${source}`, error);
  }
  const image = await build.host.resolveImage(ref, undefined);
  const { Entrypoint, Env, WorkingDir, Labels } = image.config;
  const can = listed(Labels?.["moby.buildkit.frontend.caps"]);
  const needs = new Set([...listed(attrs["frontend.caps"])].map((cap) => cap.replace(/\+forward$/, "")));
  if (inputs.size > 0) needs.add("moby.buildkit.frontend.inputs");
  for (const cap of needs) if (!can.has(cap)) throw unimplemented(`unsupported frontend capability ${cap}`);
  const { imageDefinition } = await import("../../build/index.ts");
  const root = build.session.load(imageDefinition(ref, image));
  const mount = create(MountSchema, { dest: "/", input: 0n, output: -1n });
  const container = await build.session.container({
    mounts: [{ mount, ref: root }],
    network: parseBool(Labels?.["moby.buildkit.frontend.network.none"] ?? "") === true ? "none" : "default",
    hostname: "",
    extraHosts: [],
  });
  let outcome: { result: Result } | { error: Status } | undefined;
  const own: Build = {
    ...build,
    inputs,
    depth: build.depth + 1,
    finish(what) {
      outcome = what;
    },
  };
  const starting = Promise.withResolvers<StepProcess>();
  starting.promise.catch(() => {});
  const { stream, output } = stdioOf(starting.promise);
  let said = "";
  const server = createGrpcServer((router) => {
    router.service(LLBBridge, gatewayService(kit, own));
    router.service(Health, { check: async () => ({ status: HealthCheckResponse_ServingStatus.SERVING }) });
  });
  const gone = () => void container.release();
  build.signal.addEventListener("abort", gone, { once: true });
  try {
    build.signal.throwIfAborted();
    server.accept(stream);
    const process = await container.run({
      args: Entrypoint?.length ? Entrypoint : ["/run"],
      env: [...(Env ?? []), ...environmentOf(kit, attrs)],
      cwd: WorkingDir || "/",
      user: "",
      terminal: false,
      input: true,
      onOutput(which, bytes) {
        if (which === 1) output(bytes);
        else said = (said + Buffer.from(bytes).toString("utf8")).slice(-MAX_SAID);
      },
    });
    starting.resolve(process);
    const status = await process.exited;
    build.signal.throwIfAborted();
    if (outcome && "error" in outcome) throw new ClientFailure(outcome.error);
    const why = said.trim() === "" ? "" : `: ${said.trim()}`;
    if (status !== 0) throw failedPrecondition(`frontend ${source} did not complete successfully: exit code: ${status}${why}`);
    if (!outcome) throw failedPrecondition(`frontend ${source} ended without a result${why}`);
    return outcome.result;
  } catch (error) {
    starting.reject(error);
    throw error;
  } finally {
    build.signal.removeEventListener("abort", gone);
    server.close();
    stream.destroy();
    await container.release();
  }
}
