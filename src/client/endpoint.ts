// Which engine to speak to: DOCKER_HOST, a context, or the default socket; parsed once into an Endpoint.
import { existsSync, readFileSync } from "node:fs";
import { invalidArgument } from "../lib/errors.ts";
import { type ConfigFile, readConfig } from "./config.ts";
import type { SshEndpoint } from "./ssh.ts";

export interface TlsMaterial {
  ca: string | undefined;
  cert: string | undefined;
  key: string | undefined;
  /** False takes any certificate (DOCKER_TLS without DOCKER_TLS_VERIFY). */
  verify: boolean;
}

export type Endpoint =
  | { kind: "unix"; path: string }
  | { kind: "tcp"; host: string; port: number; basePath: string; tls: TlsMaterial | undefined }
  | { kind: "fd"; fd: number }
  | SshEndpoint;

export interface Target {
  endpoint: Endpoint;
  /** As the user would write it: "unix:///var/run/docker.sock". */
  host: string;
  /** Name of the context in use; "default" where none was chosen. */
  context: string;
}

export const JUBAKO_SOCKET = "/run/jubako/docker.sock";
export const DOCKER_SOCKET = "/var/run/docker.sock";

export interface TargetOptions {
  /** `-H`: wins over everything. */
  host?: string | undefined;
  /** `--context`: wins over the environment. */
  context?: string | undefined;
  configDir: string;
  env: Record<string, string | undefined>;
  tls?: { enabled: boolean; verify: boolean; ca?: string | undefined; cert?: string | undefined; key?: string | undefined } | undefined;
  config?: ConfigFile | undefined;
}

/** The host that is used where nothing else is said: our engine's socket if there is one, else Docker's. */
export function defaultHost(): string {
  return `unix://${existsSync(JUBAKO_SOCKET) ? JUBAKO_SOCKET : DOCKER_SOCKET}`;
}

/** InvalidArgument for a malformed host, NotFound for an unknown context. */
export async function resolveTarget(options: TargetOptions): Promise<Target> {
  const { env } = options;
  const fromHost = (host: string): Target => ({ endpoint: parseHost(host, () => tlsOf(options)), host, context: "default" });
  if (options.host) return fromHost(options.host);
  const named = contextName(options);
  if (named === "default") return fromHost(env.DOCKER_HOST || defaultHost());
  const { readContext } = await import("./context.ts");
  const context = readContext(options.configDir, named);
  return { endpoint: parseHost(context.host, () => context.tls), host: context.host, context: named };
}

/** --context, DOCKER_HOST (the default context), DOCKER_CONTEXT, `currentContext` of config.json, in this order. */
export function contextName(options: TargetOptions): string {
  if (options.context) return options.context;
  if (options.host || options.env.DOCKER_HOST) return "default";
  return options.env.DOCKER_CONTEXT || (options.config ?? readConfig(options.configDir)).currentContext || "default";
}

/** Parses unix://, tcp://, http(s)://, fd:// and ssh:// hosts. */
export function parseHost(host: string, tls: () => TlsMaterial | undefined = () => undefined): Endpoint {
  const match = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/i.exec(host);
  if (!match) throw invalidArgument(`unable to parse docker host \`${host}\``);
  const [, scheme, rest] = match as unknown as [string, string, string];
  if (scheme === "unix") return { kind: "unix", path: rest || DOCKER_SOCKET };
  if (scheme === "fd") {
    const fd = Number(rest === "" ? 3 : rest);
    if (!Number.isInteger(fd) || fd < 0) throw invalidArgument(`invalid descriptor in docker host "${host}"`);
    return { kind: "fd", fd };
  }
  if (scheme === "ssh") {
    const url = urlOf(host);
    if (url.password) throw invalidArgument(`invalid ssh host "${host}": plain-text password is not supported`);
    if (url.search || url.hash) throw invalidArgument(`invalid ssh host "${host}": extra query or fragment after the host`);
    const path = url.pathname === "" || url.pathname === "/" ? undefined : url.pathname;
    return { kind: "ssh", user: url.username || undefined, host: url.hostname, port: url.port ? Number(url.port) : undefined, path };
  }
  if (scheme === "tcp" || scheme === "http" || scheme === "https") {
    const url = urlOf(`http://${rest}`);
    const material = scheme === "http" ? undefined : (tls() ?? (scheme === "https" ? noMaterial : undefined));
    const port = url.port ? Number(url.port) : scheme === "http" && /:80(\/|$)/.test(rest) ? 80 : material ? 2376 : 2375;
    return {
      kind: "tcp",
      host: url.hostname.replace(/^\[|\]$/g, ""),
      port,
      basePath: url.pathname.replace(/\/$/, ""),
      tls: material,
    };
  }
  if (scheme === "npipe") throw invalidArgument("npipe:// is a protocol of Windows; jubako runs on Linux");
  throw invalidArgument(`protocol not available: ${scheme} (of docker host "${host}")`);
}

const noMaterial: TlsMaterial = { ca: undefined, cert: undefined, key: undefined, verify: true };

function urlOf(text: string): URL {
  try {
    return new URL(text);
  } catch {
    throw invalidArgument(`unable to parse docker host \`${text}\``);
  }
}

function tlsOf(options: TargetOptions): TlsMaterial | undefined {
  const { env } = options;
  const verify = options.tls?.verify || !!env.DOCKER_TLS_VERIFY;
  if (!verify && !options.tls?.enabled && !env.DOCKER_TLS) return undefined;
  const dir = env.DOCKER_CERT_PATH || options.configDir;
  const read = (given: string | undefined, name: string) => {
    if (given) return readFileSync(given, "utf8");
    const path = `${dir}/${name}`;
    return existsSync(path) ? readFileSync(path, "utf8") : undefined;
  };
  const ca = read(options.tls?.ca, "ca.pem");
  return { ca: verify ? ca : undefined, cert: read(options.tls?.cert, "cert.pem"), key: read(options.tls?.key, "key.pem"), verify };
}
