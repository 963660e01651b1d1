// The sockets that the engine serves: unix, tcp (with TLS), and inherited descriptors (fd://, systemd's socket activation).
import { chmodSync, chownSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { createServer, connect as dial, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { failedPrecondition, invalidArgument } from "../lib/errors.ts";
import { answerPlainHttp } from "../lib/plain-http.ts";
import type { EngineConfig } from "./context.ts";

/** First inherited descriptor (sd_listen_fds(3)). */
const LISTEN_FDS_START = 3;

export interface Listener {
  host: string;
  close(): void;
}

function groupId(name: string): number | undefined {
  if (/^\d+$/.test(name)) return Number(name);
  const line = readFileSync("/etc/group", "utf8")
    .split("\n")
    .find((each) => each.startsWith(`${name}:`));
  return line === undefined ? undefined : Number(line.split(":")[2]);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = dial(path);
    socket.on("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
  });
}

function listening(server: Server, start: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.once("listening", () => resolve());
    start();
  });
}

async function listenUnix(path: string, group: string, serve: (socket: Socket) => void): Promise<() => void> {
  if (await answers(path)) throw failedPrecondition(`can't listen on unix://${path}: another process serves it`);
  const gid = groupId(group);
  if (gid === undefined && group !== "" && group !== "docker")
    throw failedPrecondition(`could not change group of ${path} to ${group}: group ${group} not found`);
  rmSync(path, { force: true });
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  const server = createServer({ allowHalfOpen: true }, serve);
  const mask = process.umask(0o177);
  try {
    await listening(server, () => server.listen(path));
  } finally {
    process.umask(mask);
  }
  if (gid !== undefined) chownSync(path, 0, gid);
  chmodSync(path, 0o660);
  return () => {
    server.close();
    rmSync(path, { force: true });
  };
}

function tlsServer(tls: EngineConfig["tls"], serve: (socket: Socket) => void): Server {
  const server = createTlsServer(
    {
      cert: readFileSync(tls.cert),
      key: readFileSync(tls.key),
      minVersion: "TLSv1.2",
      allowHalfOpen: true,
      ...(tls.mode === "verify" ? { ca: readFileSync(tls.ca), requestCert: true, rejectUnauthorized: true } : {}),
    },
    (socket) => {
      // rejectUnauthorized ends such connections already; one that got here anyway must not be served.
      if (tls.mode === "verify" && !socket.authorized) socket.destroy();
      else serve(socket);
    },
  );
  answerPlainHttp(server);
  return server;
}

async function listenTcp(host: string, tls: EngineConfig["tls"], serve: (socket: Socket) => void): Promise<() => void> {
  const at = host.slice("tcp://".length);
  const port = Number(at.slice(at.lastIndexOf(":") + 1));
  const address = at.slice(0, at.lastIndexOf(":")).replace(/^\[|\]$/g, "") || "0.0.0.0";
  if (tls.mode === "unsaid") {
    throw failedPrecondition(
      `will not serve ${host}: whoever reaches it is root on this machine. Use --tlsverify with --tlscacert, --tlscert and --tlskey, or say --tls=false to serve it unprotected`,
    );
  }
  const server = tls.mode === "off" ? createServer({ allowHalfOpen: true }, serve) : tlsServer(tls, serve);
  await listening(server, () => server.listen({ port, host: address }));
  return () => void server.close();
}

async function listenInherited(host: string, serve: (socket: Socket) => void): Promise<() => void> {
  const name = host.slice("fd://".length);
  const ours = process.env.LISTEN_PID === undefined || Number(process.env.LISTEN_PID) === process.pid;
  const count = ours ? Number(process.env.LISTEN_FDS ?? 0) : 0;
  const names = (process.env.LISTEN_FDNAMES ?? "").split(":");
  let fds: number[];
  if (name === "" || name === "*") fds = Array.from({ length: count }, (_, index) => LISTEN_FDS_START + index);
  else if (/^\d+$/.test(name)) fds = [Number(name)];
  else fds = names.flatMap((each, index) => (each === name && index < count ? [LISTEN_FDS_START + index] : []));
  if (fds.length === 0)
    throw invalidArgument(`no sockets found via socket activation for ${host}: make sure the service was started by systemd`);
  const servers = await Promise.all(
    fds.map(async (fd) => {
      const server = createServer({ allowHalfOpen: true }, serve);
      await listening(server, () => server.listen({ fd }));
      return server;
    }),
  );
  return () => {
    for (const server of servers) server.close();
  };
}

/** Serves one `-H` address. */
export async function listen(
  host: string,
  config: Pick<EngineConfig, "tls" | "group">,
  serve: (socket: Socket) => void,
): Promise<Listener> {
  const close = host.startsWith("unix://")
    ? await listenUnix(host.slice("unix://".length), config.group, serve)
    : host.startsWith("fd://")
      ? await listenInherited(host, serve)
      : await listenTcp(host, config.tls, serve);
  return { host, close };
}
