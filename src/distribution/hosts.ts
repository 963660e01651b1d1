// Where a registry's name leads: which base addresses to try, in which order, and whether certificates must be right.
import { existsSync } from "node:fs";
import { type Authorizer, type Credentials, createAuthorizer } from "./auth.ts";
import { type ProxySettings, proxiesOf } from "./proxy.ts";
import { createTransport, readBody, type Transport } from "./transport.ts";

export interface RegistryConfig {
  /** Hosts ("host", "host:port") and CIDRs that may lack a good certificate, or TLS at all. 127.0.0.0/8, ::1 and localhost always may. */
  insecure: readonly string[];
  /** Addresses to ask before Docker Hub, for pulls. */
  mirrors: readonly string[];
  /** Directory that holds a directory a host with its certificates; default /etc/docker/certs.d. */
  certificates?: string;
  /** Milliseconds of silence before a connection is given up; default 60,000. */
  timeoutMs?: number;
  userAgent?: string;
  /** How often a request is tried while the registry or the connection fails; default 5. */
  attempts?: number;
  /** By default as the environment says. */
  proxy?: ProxySettings;
}

/** One base address of a registry. */
export interface Endpoint {
  base: URL;
  transport: Transport;
  authorizer: Authorizer;
  mirror: boolean;
}

const HUB = "docker.io";
const HUB_ADDRESS = "https://registry-1.docker.io";
const TOKEN_LIMIT = 1 << 20;

function ipv4(text: string): number | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (!match) return undefined;
  const bytes = match.slice(1).map(Number);
  return bytes.some((byte) => byte > 255) ? undefined : bytes.reduce((n, byte) => n * 256 + byte, 0);
}

function inCidr(address: string, cidr: string): boolean {
  const [network, bits] = cidr.split("/");
  const a = ipv4(address);
  const n = ipv4(network ?? "");
  const length = Number(bits);
  if (a === undefined || n === undefined || !(length >= 0 && length <= 32)) return false;
  const size = 2 ** (32 - length);
  return Math.floor(a / size) === Math.floor(n / size);
}

export function isInsecure(host: string, config: Pick<RegistryConfig, "insecure">): boolean {
  const name = new URL(`http://${host}`).hostname.replace(/^\[|\]$/g, "");
  if (name === "localhost" || name === "::1" || inCidr(name, "127.0.0.0/8")) return true;
  return config.insecure.some((entry) => entry === host || entry === name || (entry.includes("/") && inCidr(name, entry)));
}

const optionsOf = (config: RegistryConfig) => ({
  timeoutMs: config.timeoutMs ?? 60_000,
  userAgent: config.userAgent ?? "jubako/0.1.0",
  proxy: { ...proxiesOf(process.env), ...config.proxy },
});

/** For hosts that are no registries: nothing of what is settled for those holds. */
export function transportElsewhere(config: RegistryConfig): Transport {
  return createTransport({ ...optionsOf(config), insecure: false, certificates: undefined });
}

/** The addresses of a registry in the order to try them; a new authorizer for each, as credentials are one host's. */
export function endpointsOf(
  domain: string,
  config: RegistryConfig,
  credentials: Credentials | undefined,
  forPull: boolean,
  offline?: (refreshToken: string) => void,
): Endpoint[] {
  const common = optionsOf(config);
  const root = config.certificates ?? "/etc/docker/certs.d";
  const endpoint = (address: string, insecure: boolean, mirror: boolean): Endpoint => {
    const base = new URL(address);
    const dir = `${root}/${base.host}`;
    const transport = createTransport({ ...common, insecure, certificates: existsSync(dir) ? dir : undefined });
    const ask = async (url: URL, init: { method: string; headers: Record<string, string>; body?: string }) => {
      const response = await transport.request(url, { ...init, follow: false });
      return { status: response.status, body: new TextDecoder().decode(await readBody(response, TOKEN_LIMIT, common.timeoutMs)) };
    };
    return { base, transport, mirror, authorizer: createAuthorizer(mirror ? undefined : credentials, ask, insecure, offline) };
  };
  if (domain === HUB) {
    const mirrors = forPull
      ? config.mirrors.map((address) => endpoint(address.replace(/\/+$/, ""), isInsecure(new URL(address).host, config), true))
      : [];
    return [...mirrors, endpoint(HUB_ADDRESS, false, false)];
  }
  if (!isInsecure(domain, config)) return [endpoint(`https://${domain}`, false, false)];
  return [endpoint(`https://${domain}`, true, false), endpoint(`http://${domain}`, true, false)];
}
