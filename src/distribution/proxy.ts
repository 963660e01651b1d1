// Which proxy a request goes through, by the rules of Go's httpproxy package, which dockerd's users know: HTTP_PROXY and HTTPS_PROXY by the URL's scheme;
// NO_PROXY lists host names (with the names below them), ".domain" (only those below), addresses, CIDRs, each with an optional port, or "*". What is on this
// machine is never asked for by a proxy.
import { BlockList, isIP } from "node:net";
import { invalidArgument } from "../lib/errors.ts";

export interface ProxySettings {
  http?: string;
  https?: string;
  /** Comma-separated. */
  none?: string;
}

/** As the environment says, capitals first. */
export function proxiesOf(env: Record<string, string | undefined>): ProxySettings {
  const found: ProxySettings = {};
  const http = env.HTTP_PROXY || env.http_proxy;
  const https = env.HTTPS_PROXY || env.https_proxy;
  const none = env.NO_PROXY || env.no_proxy;
  if (http) found.http = http;
  if (https) found.https = https;
  if (none) found.none = none;
  return found;
}

const family = (address: string) => (isIP(address) === 6 ? "ipv6" : "ipv4");

function exempt(entry: string, host: string, port: string): boolean {
  if (entry === "*") return true;
  const slash = /^([^/]+)\/(\d{1,3})$/.exec(entry);
  if (slash) {
    if (!isIP(slash[1]!) || !isIP(host)) return false;
    const list = new BlockList();
    try {
      list.addSubnet(slash[1]!, Number(slash[2]), family(slash[1]!));
    } catch {
      return false;
    }
    return list.check(host, family(host));
  }
  const match = /^(?:\[([^\]]+)\]|([^:]+|[^:]*:[^:]*:.*?))(?::(\d+))?$/.exec(entry);
  if (!match || (match[3] !== undefined && match[3] !== port)) return false;
  const name = (match[1] ?? match[2]!).toLowerCase();
  if (isIP(name) || isIP(host)) return name === host;
  const below = name.replace(/^\*\./, ".");
  return below.startsWith(".") ? host.endsWith(below) : host === below || host.endsWith(`.${below}`);
}

/** The proxy's address for a URL; undefined where it is asked directly. InvalidArgument where the settings are none. */
export function proxyFor(url: URL, settings: ProxySettings): string | undefined {
  const proxy = url.protocol === "https:" ? settings.https : settings.http;
  if (!proxy) return undefined;
  const host = url.hostname.replace(/^\[|\]$/g, "").toLowerCase();
  if (host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host)) return undefined;
  const port = url.port || (url.protocol === "https:" ? "443" : "80");
  const entries = (settings.none ?? "").split(",").map((entry) => entry.trim());
  if (entries.some((entry) => entry !== "" && exempt(entry.toLowerCase(), host, port))) return undefined;
  const address = /^[a-z][a-z0-9+.-]*:\/\//i.test(proxy) ? proxy : `http://${proxy}`;
  if (!/^https?:\/\//i.test(address) || !URL.canParse(address))
    throw invalidArgument(`proxy ${JSON.stringify(proxy)}: only http and https proxies are known`);
  return address;
}
