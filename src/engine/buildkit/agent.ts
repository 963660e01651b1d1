// The client's ssh agent as a unix socket on this host: each connection to it is carried to the client (SSH.ForwardAgent).
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { SSH } from "../../gen/moby/sshforward/v1_pb.ts";
import type { Session } from "./sessions.ts";
import { createTunnel } from "./tunnel.ts";

/** Undefined where the client has no agent of that name. */
export async function openAgent(
  session: Session,
  id: string,
  runDir: string,
): Promise<{ path: string; release(): Promise<void> } | undefined> {
  const client = session.client(SSH);
  try {
    await client.checkAgent({ ID: id }, { timeoutMs: 30_000 });
  } catch (error) {
    // grpc-go's agent provider answers Unknown for a name that it does not have: "unset ssh forward key"
    const code = error instanceof ConnectError ? error.code : undefined;
    if (code === Code.Unimplemented || code === Code.NotFound || (code === Code.Unknown && /unset ssh forward key/.test(String(error))))
      return undefined;
    throw error;
  }
  mkdirSync(runDir, { recursive: true, mode: 0o700 });
  const path = join(runDir, `ssh-${randomBytes(6).toString("hex")}.sock`);
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    const tunnel = createTunnel();
    const ending = new AbortController();
    const end = () => {
      sockets.delete(socket);
      ending.abort();
      tunnel.stream.destroy();
      socket.destroy();
    };
    socket.on("close", end).on("error", end);
    tunnel.stream.on("close", end).on("error", end);
    socket.pipe(tunnel.stream).pipe(socket);
    const signal = AbortSignal.any([ending.signal, session.closed]);
    void tunnel.feed(client.forwardAgent(tunnel.messages, { headers: { "buildkit.ssh.id": id }, signal }));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, () => resolve());
  });
  chmodSync(path, 0o600);
  return {
    path,
    async release() {
      server.close();
      for (const socket of sockets) socket.destroy();
      rmSync(path, { force: true });
    },
  };
}
