// BuildKit's protocol from the client's side, as `docker buildx build` speaks it: Control on /grpc, what we lend to the build on /session. Works with jubakod and with
// dockerd. Loaded only by commands that build, and made to be loaded quickly: no generated messages, no node:http2, but for the rarer calls (gateway).
//
//   const session = await lend(client, { directories: new Map([["context", "."]]), … });
//   const kit = await openBuildKit(client);
//   const ref = newRef();
//   for await (const update of kit.status(ref)) …          // beside:
//   const response = await kit.solve({ Ref: ref, Session: session.id, Frontend: "dockerfile.v0", … });
//   session.close(); kit.close();
import type { Client as GrpcClient } from "@connectrpc/connect";
import type { LLBBridge } from "../../gen/moby/buildkit/v1/frontend_pb.ts";
import { openCall, unaryCall } from "../../lib/grpc/calls.ts";
import type { Client } from "../client.ts";
import { callConnection } from "./connection.ts";
import { SolveRequest, SolveResponse, StatusRequest, StatusResponse } from "./messages.ts";
import { randomName } from "./names.ts";
import { openSession, type Session, type SessionOptions } from "./session.ts";

export type { SolveRequest, StatusResponse } from "./messages.ts";
export type { Session, SessionOptions } from "./session.ts";

const CONTROL = "/moby.buildkit.v1.Control";

/** What the engine refuses is thrown as a GrpcError (src/lib/grpc/status.ts). */
export interface BuildKit {
  /** Answers what the exporters say. */
  solve(request: SolveRequest, signal?: AbortSignal): Promise<Record<string, string>>;
  /** How a build goes, from its beginning to its end. */
  status(ref: string, signal?: AbortSignal): AsyncGenerator<StatusResponse>;
  /** What a client that is its own frontend may ask. */
  gateway(): Promise<GrpcClient<typeof LLBBridge>>;
  close(): void;
}

/** Opens a session, on a connection of its own. */
export const lend = (client: Client, options: SessionOptions): Promise<Session> =>
  openSession((headers) => client.build.connection("/session", headers), options);

/** A name for a build that no one else has. */
export const newRef = randomName;

export async function openBuildKit(client: Client): Promise<BuildKit> {
  const { connection, closed } = callConnection(await client.build.connection("/grpc"));
  return {
    async solve(request, signal) {
      const answer = await unaryCall(connection, `${CONTROL}/Solve`, [], SolveRequest.encode(request), signal);
      return SolveResponse.decode(answer).ExporterResponse;
    },
    async *status(ref, signal) {
      const call = openCall(connection, `${CONTROL}/Status`, [], signal);
      call.send(StatusRequest.encode({ Ref: ref }));
      call.end();
      for await (const batch of call.batches()) for (const message of batch) yield StatusResponse.decode(message);
    },
    async gateway() {
      const [{ createClient }, { LLBBridge: service }, { grpcTransport }] = await Promise.all([
        import("@connectrpc/connect"),
        import("../../gen/moby/buildkit/v1/frontend_pb.ts"),
        import("../../lib/grpc/transport.ts"),
      ]);
      return createClient(service, grpcTransport(connection, closed));
    },
    close: () => connection.close(),
  };
}
