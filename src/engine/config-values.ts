// Values of settings that are more than a text or a number: read, checked, refused in dockerd's words where it has some.
import { isIP } from "node:net";
import { invalidArgument } from "../lib/errors.ts";
import { contains, formatCidr, networkOf, parseCidr } from "../network/index.ts";
import type { EngineConfig } from "./context.ts";
import { checkUlimit } from "./ulimit.ts";

/** "64m" → bytes. */
export function parseBytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b)?$/i.exec(text.trim());
  if (!match) throw invalidArgument(`invalid size: '${text}'`);
  return Math.floor(Number(match[1]) * 1024 ** " kmgtp".indexOf((match[2] || " ").toLowerCase()));
}

export function parseUlimit(text: string): { Name: string; Soft: number; Hard: number } {
  const match = /^(\w+)=(-?\d+)(?::(-?\d+))?$/.exec(text);
  if (!match) throw invalidArgument(`invalid ulimit argument: ${text}`);
  const Soft = Number(match[2]);
  return checkUlimit({ Name: match[1]!, Soft, Hard: match[3] === undefined ? Soft : Number(match[3]) });
}

type Ulimits = EngineConfig["defaultUlimits"];

/** "default-ulimits" of daemon.json. */
export function checkUlimits(limits: Record<string, unknown>): Ulimits {
  return Object.fromEntries(
    Object.entries(limits).map(([name, limit]) => {
      const { Soft, Hard } = (limit ?? {}) as Partial<Ulimits[string]>;
      if (typeof Soft !== "number" || typeof Hard !== "number")
        throw invalidArgument(`the default ulimit ${name} must have the numbers Soft and Hard`);
      return [name, checkUlimit({ Name: name, Soft, Hard })];
    }),
  );
}

export type AddressPool = { base: string; size: number };

/** "base=10.10.0.0/16,size=24" */
export function parsePool(text: string): AddressPool {
  const fields = new Map(text.split(",").map((field) => field.trim().split("=", 2) as [string, string | undefined]));
  const base = fields.get("base");
  const size = fields.get("size");
  if (base === undefined || size === undefined || fields.size !== 2 || !/^\d{1,3}$/.test(size))
    throw invalidArgument(`invalid argument "${text}" for "--default-address-pool" flag: must be of the form base=CIDR,size=NUMBER`);
  return checkPool({ base, size: Number(size) });
}

export function checkPool(pool: unknown): AddressPool {
  const { base, size } = (pool ?? {}) as Partial<AddressPool>;
  const cidr = typeof base === "string" ? parseCidr(base) : undefined;
  if (!cidr) throw invalidArgument(`invalid base pool ${JSON.stringify(base)}: invalid CIDR address: ${base}`);
  if (typeof size !== "number" || !Number.isInteger(size) || size < cidr.prefix || size > cidr.address.length * 8 - 1)
    throw invalidArgument(`invalid size ${size} of the pool ${base}: subnets are as large as the pool, or smaller`);
  return { base: base!, size };
}

/** What is said of the default bridge, checked. */
export function defaultNetwork(said: Record<string, unknown>, bip: string | undefined): EngineConfig["defaultNetwork"] {
  const cidr = (flag: string, length: number) => {
    const text = said[flag] as string | undefined;
    if (!text) return undefined;
    const parsed = parseCidr(text);
    if (parsed?.address.length !== length) throw invalidArgument(`invalid CIDR address: ${text}`);
    return parsed;
  };
  const range = cidr("fixed-cidr", 4);
  const subnet = bip === undefined ? undefined : parseCidr(bip);
  if (range && subnet && !(range.prefix >= subnet.prefix && contains(subnet, range.address)))
    throw invalidArgument(`--fixed-cidr ${formatCidr(range)} is not within the default bridge's subnet ${bip}`);
  const v6 = cidr("fixed-cidr-v6", 16);
  const hostBinding = (said.ip as string | undefined) ?? "0.0.0.0";
  if (isIP(hostBinding) === 0) throw invalidArgument(`${hostBinding} is not an ip address`);
  const mtu = (said.mtu as number | undefined) ?? 1500;
  if (mtu < 68 || mtu > 65535) throw invalidArgument(`invalid MTU number: ${mtu}`);
  return {
    ipv6: said.ipv6 === true,
    fixedCidr: range && formatCidr(range),
    fixedCidrV6: v6 && formatCidr({ address: networkOf(v6), prefix: v6.prefix }),
    mtu,
    icc: said.icc !== false,
    masquerade: said["ip-masq"] !== false,
    hostBinding,
  };
}

export function normalizeHost(host: string, tls: boolean): string {
  if (host === "" || host === "unix://") return "unix:///run/jubako/docker.sock";
  if (host.startsWith("unix://") || host.startsWith("fd://")) return host;
  if (host.startsWith("tcp://")) {
    const rest = host.slice(6) || `127.0.0.1:${tls ? 2376 : 2375}`;
    if (!/^(\[[0-9a-fA-F:.]+\]|[\w.-]*)(:\d{1,5})?$/.test(rest)) throw invalidArgument(`invalid bind address format: ${host}`);
    return `tcp://${/:\d+$/.test(rest) ? rest : `${rest}:${tls ? 2376 : 2375}`}`;
  }
  throw invalidArgument(`invalid bind address (${host}): must be unix://PATH, tcp://HOST:PORT or fd://`);
}

/** Serving tcp without verified clients must have been asked for in words: `--tls=false`, or `--tls --tlsverify=false`. */
export function tlsMode(tls: unknown, verify: unknown): EngineConfig["tls"]["mode"] {
  if (verify === true) return "verify";
  if (tls === true) return verify === false ? "encrypt" : "unsaid";
  return tls === false || verify === false ? "off" : "unsaid";
}

/** Settings that change nothing here: refused where they would have to. */
export function checkAlike(said: Record<string, unknown>): void {
  const driver = said["storage-driver"];
  if (driver !== undefined && driver !== "" && driver !== "overlay2" && driver !== "overlayfs")
    throw invalidArgument(`the storage driver ${driver} is not supported: there is overlayfs`);
  for (const name of ["iptables", "ip6tables"])
    if (said[name] === false) throw invalidArgument(`--${name}=false is not supported: bridges and published ports need the packet filter`);
  if (said["selinux-enabled"] === true) throw invalidArgument("--selinux-enabled is not supported: containers get no SELinux labels");
}

export function containerDefaults(said: Record<string, unknown>): EngineConfig["containerDefaults"] {
  const ipcMode = said["default-ipc-mode"] ?? "private";
  if (ipcMode !== "private" && ipcMode !== "shareable")
    throw invalidArgument(`IPC mode ${ipcMode} can not be used as default: use private or shareable`);
  const cgroupnsMode = said["default-cgroupns-mode"];
  if (cgroupnsMode !== undefined && cgroupnsMode !== "private" && cgroupnsMode !== "host")
    throw invalidArgument(`cgroup namespace mode ${cgroupnsMode} is not supported: use private or host`);
  return { noNewPrivileges: said["no-new-privileges"] === true, ipcMode, cgroupnsMode };
}
