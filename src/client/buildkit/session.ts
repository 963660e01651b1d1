// What a client lends to its build: files, secrets, an ssh agent, credentials, and places for what comes out. The engine calls these on a connection that we opened.
import { randomBytes } from "node:crypto";
import { connect } from "node:net";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Packet, PacketSchema } from "../../gen/fsutil/types_pb.ts";
import { Health, HealthCheckResponse_ServingStatus } from "../../gen/grpc/health/v1_pb.ts";
import { Secrets } from "../../gen/moby/buildkit/secrets/v1_pb.ts";
import { Auth, FileSend, FileSync } from "../../gen/moby/filesync/v1_pb.ts";
import { SSH, BytesMessageSchema as SshBytes } from "../../gen/moby/sshforward/v1_pb.ts";
import { messageOf } from "../../lib/errors.ts";
import type { RawStream } from "../streams.ts";
import { listHeader, serveGrpc } from "./connection.ts";
import { sendDirectory } from "./files.ts";
import { receiveDirectory } from "./receive.ts";

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
  /** Names the directory, so that the next build of it need not send all again. */
  sharedKey: string;
}

const LISTS = ["include-patterns", "exclude-patterns", "followpaths", "dir-name"];
const METHODS = [
  "/grpc.health.v1.Health/Check",
  "/moby.filesync.v1.FileSync/DiffCopy",
  "/moby.filesync.v1.FileSend/DiffCopy",
  "/moby.filesync.v1.Auth/Credentials",
  "/moby.buildkit.secrets.v1.Secrets/GetSecret",
  "/moby.sshforward.v1.SSH/CheckAgent",
  "/moby.sshforward.v1.SSH/ForwardAgent",
];

/** FileSend's messages are declared as bytes; for a directory they are packets. */
const packetMethod = { ...FileSend.method.diffCopy, input: PacketSchema, output: PacketSchema };
const PacketSend = { ...FileSend, methods: [packetMethod], method: { diffCopy: packetMethod } } as unknown as typeof FileSync;

/** Bytes both ways between a call and an agent's socket. */
async function* forward(path: string, messages: AsyncIterable<{ data: Uint8Array }>): AsyncGenerator<Uint8Array> {
  const socket = connect(path);
  const sending = (async () => {
    for await (const { data } of messages) socket.write(data);
    socket.end();
  })().catch(() => socket.destroy());
  try {
    for await (const chunk of socket) yield chunk as Uint8Array;
  } finally {
    socket.destroy();
    await sending;
  }
}

export interface Session {
  id: string;
  closed: Promise<void>;
  close(): void;
}

export async function openSession(
  connection: (headers: Record<string, string | readonly string[]>) => Promise<RawStream>,
  options: SessionOptions,
): Promise<Session> {
  const id = randomBytes(16).toString("hex").slice(0, 25);
  const { output } = options;
  const raw = await connection({
    "X-Docker-Expose-Session-Uuid": id,
    "X-Docker-Expose-Session-Name": "jubako",
    "X-Docker-Expose-Session-Sharedkey": options.sharedKey,
    "X-Docker-Expose-Session-Grpc-Method": METHODS,
  });
  const agent = (name: string): string => {
    const path = options.ssh.get(name || "default");
    if (path === undefined) throw new ConnectError(`unset ssh forward key ${name || "default"}`, Code.NotFound);
    return path;
  };
  const served = serveGrpc(raw, LISTS, (router) => {
    router.service(Health, { check: async () => ({ status: HealthCheckResponse_ServingStatus.SERVING }) });
    router.service(FileSync, {
      diffCopy(packets, { requestHeader }) {
        const [name = ""] = listHeader(requestHeader, "dir-name");
        const directory = options.directories.get(name);
        if (directory === undefined) throw new ConnectError(`no access allowed to dir ${JSON.stringify(name)}`, Code.NotFound);
        const wanted = {
          includePatterns: listHeader(requestHeader, "include-patterns"),
          excludePatterns: listHeader(requestHeader, "exclude-patterns"),
          followPaths: listHeader(requestHeader, "followpaths"),
        };
        return sendDirectory(directory, wanted, packets);
      },
      // biome-ignore lint/correctness/useYield: there is nothing to give
      async *tarStream() {
        throw new ConnectError("tar streams of directories", Code.Unimplemented);
      },
    });
    if (output && "directory" in output)
      router.service(PacketSend, { diffCopy: (packets: AsyncIterable<Packet>) => receiveDirectory(output.directory, packets) } as never);
    else
      router.service(FileSend, {
        async *diffCopy(messages) {
          if (!output) throw new ConnectError("there is no place for an output", Code.FailedPrecondition);
          for await (const { data } of messages) await output.write(data);
          await output.end();
          yield* [] as never[];
        },
      });
    router.service(Auth, {
      async credentials({ Host }) {
        const { username, secret } = await options.credentials(Host);
        return { Username: username, Secret: secret };
      },
    });
    router.service(Secrets, {
      async getSecret({ ID }) {
        let data: Uint8Array | undefined;
        try {
          data = await options.secret(ID);
        } catch (error) {
          throw new ConnectError(messageOf(error), Code.Unknown);
        }
        if (!data) throw new ConnectError(`secret ${ID} not found`, Code.NotFound);
        return { data };
      },
    });
    router.service(SSH, {
      async checkAgent({ ID }) {
        agent(ID);
        return {};
      },
      async *forwardAgent(messages, { requestHeader }) {
        for await (const data of forward(agent(requestHeader.get("buildkit.ssh.id") ?? ""), messages)) yield create(SshBytes, { data });
      },
    });
  });
  return { id, ...served };
}
