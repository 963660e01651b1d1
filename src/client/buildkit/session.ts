// What a client lends to its build: files, secrets, an ssh agent, credentials, and places for what comes out. The engine calls these on a connection that we opened.
import { messageOf } from "../../lib/errors.ts";
import type { Handler, ServerCall } from "../../lib/grpc/server.ts";
import { CODE, GrpcError } from "../../lib/grpc/status.ts";
import type { RawStream } from "../streams.ts";
import { serveConnection } from "./connection.ts";
import { sendDirectory } from "./files.ts";
import {
  BytesMessage,
  CheckAgentRequest,
  CredentialsRequest,
  CredentialsResponse,
  GetSecretRequest,
  GetSecretResponse,
  HealthCheckResponse,
} from "./messages.ts";
import { randomName } from "./names.ts";

export interface SessionOptions {
  /** Directories by the names that the build calls them: "context", "dockerfile". */
  directories: ReadonlyMap<string, string>;
  /** Undefined: there is none of that name. */
  secret(id: string): Promise<Uint8Array | undefined>;
  /** Paths of agents' sockets by name. */
  ssh: ReadonlyMap<string, string>;
  credentials(host: string): Promise<{ username: string; secret: string }>;
  /** A directory, or where bytes go. */
  output: { directory: string } | { write(bytes: Uint8Array): Promise<void>; end(): Promise<void> } | undefined;
  /** OCI layouts by the names that the build calls them: "local:DIR" for caches, "oci:NAME" for contexts. */
  layouts: ReadonlyMap<string, string>;
  /** Names the directory, so that the next build of it need not send all again. */
  sharedKey: string;
}

export interface Session {
  id: string;
  closed: Promise<void>;
  close(): void;
}

const NOTHING = new Uint8Array();

/** Metadata with several values. */
function listOf(call: ServerCall, name: string): string[] {
  const values = call.list(name);
  return call.header(`${name}-encoded`) === "1" ? values.map((value) => decodeURIComponent(value)) : values;
}

/** Bytes both ways between a call and an agent's socket. */
async function forward(path: string, call: ServerCall): Promise<void> {
  const { connect } = await import("node:net");
  const socket = connect(path);
  const sending = (async () => {
    for await (const batch of call.batches()) for (const message of batch) socket.write(BytesMessage.decode(message).data);
    socket.end();
  })().catch(() => socket.destroy());
  try {
    for await (const data of socket) {
      call.send(BytesMessage.encode({ data: data as Uint8Array }));
      await call.room();
    }
  } finally {
    socket.destroy();
    await sending;
  }
}

function handlersOf(options: SessionOptions): Record<string, Handler> {
  const agent = (name: string): string => {
    const path = options.ssh.get(name || "default");
    if (path === undefined) throw new GrpcError(`unset ssh forward key ${name || "default"}`, CODE.NOT_FOUND);
    return path;
  };
  return {
    async "/grpc.health.v1.Health/Check"(call) {
      await call.message();
      call.send(HealthCheckResponse.encode({ status: 1 }));
    },
    async "/moby.filesync.v1.FileSync/DiffCopy"(call) {
      const [name = ""] = listOf(call, "dir-name");
      const directory = options.directories.get(name);
      if (directory === undefined) throw new GrpcError(`no access allowed to dir ${JSON.stringify(name)}`, CODE.NOT_FOUND);
      const wanted = {
        includePatterns: listOf(call, "include-patterns"),
        excludePatterns: listOf(call, "exclude-patterns"),
        followPaths: listOf(call, "followpaths"),
      };
      await sendDirectory(directory, wanted, call);
    },
    async "/moby.filesync.v1.FileSend/DiffCopy"(call) {
      const { output } = options;
      if (!output) throw new GrpcError("there is no place for an output", CODE.FAILED_PRECONDITION);
      // The messages are declared as bytes; for a directory they are packets.
      if ("directory" in output) {
        const { receiveDirectory } = await import("./receive.ts");
        return receiveDirectory(output.directory, call);
      }
      for await (const batch of call.batches()) for (const message of batch) await output.write(BytesMessage.decode(message).data);
      await output.end();
    },
    async "/moby.filesync.v1.Auth/Credentials"(call) {
      const { Host } = CredentialsRequest.decode(await call.message());
      const { username, secret } = await options.credentials(Host);
      call.send(CredentialsResponse.encode({ Username: username, Secret: secret }));
    },
    async "/moby.buildkit.secrets.v1.Secrets/GetSecret"(call) {
      const { ID } = GetSecretRequest.decode(await call.message());
      let data: Uint8Array | undefined;
      try {
        data = await options.secret(ID);
      } catch (error) {
        throw new GrpcError(messageOf(error), CODE.UNKNOWN);
      }
      if (!data) throw new GrpcError(`secret ${ID} not found`, CODE.NOT_FOUND);
      call.send(GetSecretResponse.encode({ data }));
    },
    async "/moby.sshforward.v1.SSH/CheckAgent"(call) {
      agent(CheckAgentRequest.decode(await call.message()).ID);
      call.send(NOTHING);
    },
    "/moby.sshforward.v1.SSH/ForwardAgent": async (call) => forward(agent(call.header("buildkit.ssh.id") ?? ""), call),
  };
}

export async function openSession(
  connection: (headers: Record<string, string | readonly string[]>) => Promise<RawStream>,
  options: SessionOptions,
): Promise<Session> {
  const id = randomName();
  const handlers = new Map(Object.entries(handlersOf(options)));
  if (options.layouts.size > 0) {
    const { layoutHandlers } = await import("./layouts.ts");
    for (const [path, handler] of layoutHandlers(options.layouts)) handlers.set(path, handler);
  }
  const raw = await connection({
    "X-Docker-Expose-Session-Uuid": id,
    "X-Docker-Expose-Session-Name": "jubako",
    "X-Docker-Expose-Session-Sharedkey": options.sharedKey,
    "X-Docker-Expose-Session-Grpc-Method": [...handlers.keys()],
  });
  return { id, ...serveConnection(raw, (path) => handlers.get(path), undefined) };
}
