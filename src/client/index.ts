// The client of the Docker Engine API, for the CLI and for anyone who imports it; on Bun and on Node. It speaks to jubakod and to dockerd.
// It must never know how an engine works, and never write to the terminal.
//
// Protocol at its door: the Engine API, HTTP/1.1 over a unix socket, tcp, TLS, an inherited descriptor or ssh. Attach and exec upgrade the
// connection to a raw stream; without a terminal that stream is framed (frames.ts), and each long answer is JSON, one message a line.
//
// Nouns: a Target says which engine (from DOCKER_HOST, a context, or the default socket); a Client holds kept-alive connections to it, as many
// as requests run at once, and ends with close(). The API version is learnt from the first answer: no ping goes before. What the engine
// refuses is thrown as a Failure with `status`; where no engine answers, as a Failure without.
//
//   const client = await connectClient();
//   const { Id } = await client.containers.create({ Image: "busybox", Cmd: ["true"], AttachStdout: true });
//   const stream = await client.containers.attach(Id, { stream: true, stdout: true });
//   stream.start(demultiplexer((_, piece) => console.log(piece.toString())), () => {});
//   const exited = await client.containers.wait(Id, "next-exit");     // asked before the start: nothing is missed
//   await client.containers.start(Id);
//   const { StatusCode } = await exited();
//   client.close();
import { type Client, createClient } from "./client.ts";
import { configDirectory, readConfig } from "./config.ts";
import { resolveTarget } from "./endpoint.ts";

export type { BuildKit, Session as BuildSession, SessionOptions as BuildSessionOptions, StatusResponse } from "./buildkit/index.ts";
export type { Client, CreateBody, DiskUsage, ExecBody, Filters, PathStat, ProgressMessage, PruneReport } from "./client.ts";
export { createClient } from "./client.ts";
export type { ConfigFile, StoredAuth } from "./config.ts";
export { configDirectory, readConfig, writeConfig } from "./config.ts";
export type { StoredContext } from "./context.ts";
export type { Endpoint, Target, TargetOptions, TlsMaterial } from "./endpoint.ts";
export { contextName, defaultHost, parseHost, resolveTarget } from "./endpoint.ts";
export { demultiplexer } from "./frames.ts";
export type { HttpResponse } from "./http.ts";
export { type ApiFailure, isApiFailure, MAX_VERSION, minor } from "./request.ts";
export { connect as connectTo } from "./socket.ts";
export { jsonLines, type RawStream, textLines } from "./streams.ts";

/** A client for the engine that the environment names. */
export async function connectClient(
  options: { host?: string; context?: string; env?: Record<string, string | undefined> } = {},
): Promise<Client> {
  const env = options.env ?? process.env;
  const configDir = configDirectory(env);
  const config = readConfig(configDir);
  const target = await resolveTarget({ host: options.host, context: options.context, configDir, env, config });
  return createClient({ target, version: env.DOCKER_API_VERSION || undefined, headers: config.HttpHeaders });
}

/** BuildKit's protocol; loaded only by commands that build. */
export const loadBuildKit = () => import("./buildkit/index.ts");

/** OCI layouts of ours; loaded only by builds that have any. */
export const loadLayouts = () => import("./buildkit/layouts.ts");

/** Reading stored contexts; loaded only when asked for, as few commands need it. */
export const loadContexts = () => import("./context.ts");
