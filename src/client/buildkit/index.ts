// BuildKit's protocol from the client's side, as `docker buildx build` speaks it: Control on /grpc, what we lend to the build on /session. Works with jubakod and with
// dockerd. Loaded only by commands that build.
//
//   const kit = await openBuildKit(client);
//   const session = await kit.session({ directories: new Map([["context", "."]]), … });
//   const ref = newRef();
//   for await (const update of kit.control.status({ Ref: ref })) …          // beside:
//   const { ExporterResponse } = await kit.control.solve({ Ref: ref, Session: session.id, Frontend: "dockerfile.v0", … });
//   session.close(); kit.close();
import { randomBytes } from "node:crypto";
import { createClient, type Client as GrpcClient } from "@connectrpc/connect";
import { LLBBridge } from "../../gen/moby/buildkit/v1/frontend_pb.ts";
import { Control } from "../../gen/moby/buildkit/v1_pb.ts";
import type { Client } from "../client.ts";
import { grpcTransport } from "./connection.ts";
import { openSession, type Session, type SessionOptions } from "./session.ts";

export type { Session, SessionOptions } from "./session.ts";

export interface BuildKit {
  control: GrpcClient<typeof Control>;
  gateway: GrpcClient<typeof LLBBridge>;
  session(options: SessionOptions): Promise<Session>;
  close(): void;
}

/** A name for a build that no one else has. */
export const newRef = (): string => randomBytes(16).toString("hex").slice(0, 25);

export async function openBuildKit(client: Client): Promise<BuildKit> {
  const { transport, close } = grpcTransport(await client.build.connection("/grpc"));
  return {
    control: createClient(Control, transport),
    gateway: createClient(LLBBridge, transport),
    session: (options) => openSession((headers) => client.build.connection("/session", headers), options),
    close,
  };
}
