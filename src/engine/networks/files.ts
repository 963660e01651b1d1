// The files of a container's directory that are bound into it: hosts, resolv.conf, hostname; and the resolver that resolv.conf may name.
import { readFileSync, writeFileSync } from "node:fs";
import { invalidArgument } from "../../lib/errors.ts";
import {
  createResolver,
  formatAddress,
  hostResolvConf,
  hostsFile,
  namedResolvConf,
  parseAddress,
  plainResolvConf,
  replaceHosts,
  resolvConfEdited,
  sharedResolvConf,
} from "../../network/index.ts";
import type { ContainerRecord } from "../context.ts";
import { namesFor } from "./names.ts";
import type { State } from "./registry.ts";
import type { Mode } from "./settings.ts";
import { hasLinks, type Sandbox } from "./state.ts";

export const paths = (record: ContainerRecord) => ({
  hostsPath: `${record.dir}/hosts`,
  resolvConfPath: `${record.dir}/resolv.conf`,
  hostnamePath: `${record.dir}/hostname`,
});

function overrides(state: State, record: ContainerRecord) {
  const { hostConfig } = record;
  const { config } = state.engine;
  return {
    nameservers: hostConfig.Dns?.length ? hostConfig.Dns : config.dns,
    search: hostConfig.DnsSearch?.length ? hostConfig.DnsSearch : config.dnsSearch,
    options: hostConfig.DnsOptions?.length ? hostConfig.DnsOptions : config.dnsOptions,
  };
}

/** `--add-host name:address`, `name=address`, `name:host-gateway`. */
export function extraHosts(state: State, record: ContainerRecord): [address: string, names: string][] {
  return (record.hostConfig.ExtraHosts ?? []).map((entry) => {
    const at = entry.search(/[:=]/);
    const name = entry.slice(0, at);
    let address = entry.slice(at + 1).replace(/^\[(.*)\]$/, "$1");
    if (at <= 0) throw invalidArgument(`bad format for add-host: "${entry}"`);
    if (address === "host-gateway") {
      const bridge = [...state.networks.values()].find((n) => n.predefined && n.bridge);
      const gateway = bridge?.subnets[0]?.gateway;
      const said = state.engine.config.hostGateways[0];
      if (!said && !gateway) throw invalidArgument("unable to derive the IP value for host-gateway");
      address = said ?? formatAddress(gateway!);
    } else if (!parseAddress(address)) throw invalidArgument(`invalid IP address in add-host: "${address}"`);
    return [address, name];
  });
}

/** The container's own line of /etc/hosts: name with domain first where it has one. */
function ownNames(record: ContainerRecord): string {
  const hostname = record.config.Hostname ?? record.id.slice(0, 12);
  return record.config.Domainname ? `${hostname}.${record.config.Domainname} ${hostname}` : hostname;
}

/** `--link` on the default bridge: the other container by alias, short id and name, as far as it runs. */
function linkedHosts(sandbox: Sandbox): [address: string, names: string][] {
  const network = sandbox.endpoints.find((e) => e.network.bridge && e.network.predefined)?.network;
  if (!network) return [];
  return [...sandbox.links].flatMap(([alias, ref]) => {
    const other = [...network.endpoints.values()].find((e) => e.containerName === ref || e.containerId.startsWith(ref));
    const address = other?.addresses[0]?.cidr.address;
    if (!other || !address) return [];
    const names = [...new Set([alias, other.containerId.slice(0, 12), other.containerName])];
    return [[formatAddress(address), names.join(" ")] as [string, string]];
  });
}

const ownHosts = (sandbox: Sandbox, names: string) =>
  sandbox.endpoints.flatMap((e) => e.addresses.map((a): [string, string] => [formatAddress(a.cidr.address), names]));

export function writeHosts(state: State, sandbox: Sandbox, record: ContainerRecord): void {
  const own = ownHosts(sandbox, ownNames(record));
  writeFileSync(paths(record).hostsPath, hostsFile([...extraHosts(state, record), ...linkedHosts(sandbox)], own), { mode: 0o644 });
}

/** Whether names of containers are resolved for it: it is on a user-defined network. */
const named = (sandbox: Sandbox) => sandbox.endpoints.some((e) => hasLinks(e.network) && !e.network.predefined);

/** /etc/resolv.conf; notes in the sandbox where its resolver asks. */
export function writeResolvConf(state: State, sandbox: Sandbox, record: ContainerRecord, mode: Mode, edited = false): void {
  const host = hostResolvConf();
  const wanted = overrides(state, record);
  let text: string;
  if (mode === "host") text = sharedResolvConf(host, wanted);
  else if (named(sandbox)) {
    const conf = namedResolvConf(host, wanted);
    text = conf.text;
    sandbox.upstreams = conf.upstreams;
  } else {
    const ipv6 = sandbox.endpoints.some((e) => e.network.record.enableIPv6);
    text = plainResolvConf(host, wanted, ipv6);
  }
  if (!edited) writeFileSync(paths(record).resolvConfPath, text, { mode: 0o644 });
}

/** Starts or ends the resolver as the networks want it; the namespace must be open. */
export function resolve(state: State, sandbox: Sandbox): void {
  if (named(sandbox) && sandbox.namespace) sandbox.resolver ??= createResolver(sandbox.namespace.fd, namesFor(sandbox), state.forwarder);
  else if (!named(sandbox)) {
    sandbox.resolver?.close();
    sandbox.resolver = undefined;
  }
}

const read = (path: string): string => {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
};

/** After networks of a running container changed. What a program in it wrote into the files stays. The files keep their inodes: they are bind mounts in the container. */
export function refreshFiles(state: State, sandbox: Sandbox, record: ContainerRecord): void {
  const { hostsPath, resolvConfPath } = paths(record);
  const names = ownNames(record);
  writeFileSync(hostsPath, replaceHosts(read(hostsPath), names, ownHosts(sandbox, names)));
  writeResolvConf(state, sandbox, record, "bridge", resolvConfEdited(read(resolvConfPath)));
  resolve(state, sandbox);
}

/** All three, for a container about to start. */
export function writeFiles(state: State, sandbox: Sandbox, record: ContainerRecord, mode: Mode): void {
  writeHosts(state, sandbox, record);
  writeResolvConf(state, sandbox, record, mode);
  writeFileSync(paths(record).hostnamePath, `${record.config.Hostname ?? record.id.slice(0, 12)}\n`, { mode: 0o644 });
}
