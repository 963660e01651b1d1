// Giving a container its place in the network, and taking it away. Everything here is synchronous: no other request sees half of it.
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import type { EndpointSettings, NetworkSettings } from "../../api/types.ts";
import { conflict, failedPrecondition, invalidArgument } from "../../lib/errors.ts";
import {
  bridgedPacketsAreFiltered,
  contains,
  createResolver,
  findLink,
  formatAddress,
  formatMac,
  hostResolvConf,
  hostsFile,
  macOf,
  namedResolvConf,
  parseAddress,
  parseMac,
  plainResolvConf,
  plug,
  removeLink,
  setDefaultRoutes,
  sharedResolvConf,
} from "../../network/index.ts";
import type { ContainerRecord, NetworkAttachment } from "../context.ts";
import { namesFor } from "./names.ts";
import { exposedPorts, planPorts, publish, unpublish } from "./publish.ts";
import { activate, allocate, errno, findNetwork, isErrno, newId, realize, type State } from "./registry.ts";
import type { Endpoint, Network, Sandbox } from "./state.ts";

/** What inspect shows beside `Networks`; the fields of the default bridge are there for API versions below 1.52. */
export type Settings = NetworkSettings & {
  Bridge?: string;
  HairpinMode?: boolean;
  LinkLocalIPv6Address?: string;
  LinkLocalIPv6PrefixLen?: number;
  SecondaryIPAddresses?: null;
  SecondaryIPv6Addresses?: null;
  EndpointID?: string;
  Gateway?: string;
  GlobalIPv6Address?: string;
  GlobalIPv6PrefixLen?: number;
  IPAddress?: string;
  IPPrefixLen?: number;
  IPv6Gateway?: string;
  MacAddress?: string;
};

export type Mode = "bridge" | "none" | "host" | "container";

/** What kind of network a NetworkMode names. */
export function modeOf(networkMode: string | undefined): { mode: Mode; name: string } {
  const name = networkMode === undefined || networkMode === "" || networkMode === "default" ? "bridge" : networkMode;
  if (name === "host" || name === "none") return { mode: name, name };
  if (name.startsWith("container:")) return { mode: "container", name: name.slice("container:".length) };
  return { mode: "bridge", name };
}

const paths = (record: ContainerRecord) => ({
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
      const gateway = bridge?.bridge?.subnets[0]?.gateway;
      if (!gateway) throw invalidArgument("unable to derive the IP value for host-gateway");
      address = formatAddress(gateway);
    } else if (!parseAddress(address)) throw invalidArgument(`invalid IP address in add-host: "${address}"`);
    return [address, name];
  });
}

/** The container's own line of /etc/hosts: name with domain first where it has one. */
function ownNames(record: ContainerRecord): string {
  const hostname = record.config.Hostname ?? record.id.slice(0, 12);
  return record.config.Domainname ? `${hostname}.${record.config.Domainname} ${hostname}` : hostname;
}

export function writeHosts(state: State, record: ContainerRecord, endpoints: Endpoint[]): void {
  const own = endpoints.flatMap((e) => e.addresses.map((a): [string, string] => [formatAddress(a.cidr.address), ownNames(record)]));
  writeFileSync(paths(record).hostsPath, hostsFile(extraHosts(state, record), own), { mode: 0o644 });
}

/** Whether names of containers are resolved for it: it is on a user-defined network. */
const named = (sandbox: Sandbox) => sandbox.endpoints.some((e) => e.network.bridge && !e.network.predefined);

/** /etc/resolv.conf; notes in the sandbox where its resolver asks. */
function writeResolvConf(state: State, sandbox: Sandbox, record: ContainerRecord, mode: Mode): void {
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
  writeFileSync(paths(record).resolvConfPath, text, { mode: 0o644 });
}

/** Starts or ends the resolver as the networks want it; the namespace must be open. */
export function resolve(state: State, sandbox: Sandbox): void {
  if (named(sandbox) && sandbox.namespace) sandbox.resolver ??= createResolver(sandbox.namespace.fd, namesFor(sandbox), state.forwarder);
  else if (!named(sandbox)) {
    sandbox.resolver?.close();
    sandbox.resolver = undefined;
  }
}

/** After networks of a running container changed. The files keep their inodes: they are bind mounts in the container. */
export function refreshFiles(state: State, sandbox: Sandbox, record: ContainerRecord): void {
  writeHosts(state, record, sandbox.endpoints);
  writeResolvConf(state, sandbox, record, "bridge");
  resolve(state, sandbox);
}

/** Whether a MAC in the settings is the user's wish, and not what was assigned with an address before. */
function wantedMac(settings: EndpointSettings): string | undefined {
  if (!settings.MacAddress) return undefined;
  const before = settings.IPAddress ? parseAddress(settings.IPAddress) : undefined;
  return before?.length === 4 && formatMac(macOf(before)) === settings.MacAddress ? undefined : settings.MacAddress;
}

/** Names by which others on a user-defined network find the container. */
export function dnsNames(record: ContainerRecord, settings: EndpointSettings): string[] {
  const names = [record.name, ...(settings.Aliases ?? []), record.id.slice(0, 12), record.config.Hostname ?? ""];
  return [...new Set(names.filter((name) => name !== ""))];
}

/** `--link other:alias`, of the container and of its endpoints. */
export function linksOf(record: ContainerRecord): Map<string, string> {
  const links = new Map<string, string>();
  for (const link of [...(record.hostConfig.Links ?? []), ...Object.values(record.networks).flatMap((s) => s.Links ?? [])]) {
    const [other, alias] = link.split(":");
    if (other) links.set((alias || other).replace(/^.*\//, "").toLowerCase(), other.replace(/^\//, ""));
  }
  return links;
}

/** Takes addresses for an endpoint; nothing is on the host yet. */
function reserve(network: Network, record: ContainerRecord, settings: EndpointSettings, sandbox: Sandbox): Endpoint {
  const id = newId();
  const endpoint: Endpoint = {
    id,
    network,
    containerId: record.id,
    containerName: record.name,
    veth: "",
    interface: "",
    index: 0,
    mac: undefined,
    addresses: [],
    names: [],
    gatewayPriority: settings.GwPriority ?? 0,
  };
  if (!network.bridge) return endpoint;
  endpoint.veth = `veth${id.slice(0, 7)}`;
  endpoint.index = sandbox.nextIndex;
  endpoint.interface = `eth${sandbox.nextIndex - 2}`;
  if (!network.predefined) endpoint.names = dnsNames(record, settings);
  const mac = wantedMac(settings);
  try {
    for (const length of [4, 16]) {
      const offered = network.bridge.subnets.filter((s) => s.gateway.length === length);
      if (offered.length === 0) continue;
      const wanted = length === 4 ? settings.IPAMConfig?.IPv4Address : settings.IPAMConfig?.IPv6Address;
      const at = wanted ? parseAddress(wanted) : undefined;
      const subnet = at ? offered.find((s) => contains(s.cidr, at)) : offered[0];
      if (!subnet) throw invalidArgument(`no configured subnet contains IP address ${wanted}`);
      const address = allocate(network, subnet, wanted);
      endpoint.addresses.push({ cidr: { address, prefix: subnet.cidr.prefix }, subnet });
    }
    const v4 = endpoint.addresses.find((a) => a.cidr.address.length === 4)?.cidr.address;
    endpoint.mac = mac ? parseMac(mac) : macOf(v4 ?? Buffer.from(id.slice(0, 8), "hex"));
    if (!endpoint.mac) throw invalidArgument(`invalid MAC address: ${mac}`);
  } catch (error) {
    releaseAddresses(endpoint);
    throw error;
  }
  return endpoint;
}

function releaseAddresses(endpoint: Endpoint): void {
  for (const { cidr, subnet } of endpoint.addresses) subnet.allocator.release(cidr.address);
  endpoint.addresses = [];
}

/** Adds an endpoint to a sandbox whose namespace is open. */
export function join(state: State, sandbox: Sandbox, network: Network, record: ContainerRecord, settings: EndpointSettings): Endpoint {
  const endpoint = reserve(network, record, settings, sandbox);
  const { bridge } = network;
  try {
    if (bridge) {
      const inside = sandbox.namespace;
      if (!inside) throw failedPrecondition(`container ${record.id} has no open network namespace`);
      const link = () =>
        plug(state.route, inside, {
          veth: endpoint.veth,
          bridge: bridge.index,
          mtu: bridge.mtu,
          name: endpoint.interface,
          index: endpoint.index,
          mac: endpoint.mac!,
          addresses: endpoint.addresses.map((a) => a.cidr),
          isolated: !bridge.icc && !bridgedPacketsAreFiltered(),
        });
      try {
        link();
      } catch (error) {
        // somebody removed the bridge behind our back
        if (!isErrno(error, errno.ENODEV, errno.EINVAL)) throw error;
        realize(state, network);
        link();
      }
      sandbox.nextIndex++;
    }
  } catch (error) {
    releaseAddresses(endpoint);
    throw error;
  }
  network.endpoints.set(record.id, endpoint);
  sandbox.endpoints.push(endpoint);
  assign(settings, endpoint);
  return endpoint;
}

/** The endpoint whose gateways the container uses: highest priority, internal networks never, then by name. */
export function gatewayEndpoint(sandbox: Sandbox): Endpoint | undefined {
  return sandbox.endpoints
    .filter((e) => e.network.bridge && !e.network.record.internal)
    .sort((a, b) => b.gatewayPriority - a.gatewayPriority || (a.network.record.name < b.network.record.name ? -1 : 1))[0];
}

export function routeDefault(sandbox: Sandbox): void {
  const endpoint = gatewayEndpoint(sandbox);
  if (!endpoint || !sandbox.namespace) return;
  setDefaultRoutes(
    sandbox.namespace,
    endpoint.addresses.map((a) => ({ gateway: a.subnet.gateway, index: endpoint.index })),
  );
}

/** Writes what was assigned into the record's settings. */
function assign(settings: EndpointSettings, endpoint: Endpoint): void {
  const { network } = endpoint;
  const v4 = endpoint.addresses.find((a) => a.cidr.address.length === 4);
  const v6 = endpoint.addresses.find((a) => a.cidr.address.length === 16);
  const gateway = (a: typeof v4) => (a && !network.record.internal ? formatAddress(a.subnet.gateway) : "");
  settings.NetworkID = network.record.id;
  settings.EndpointID = endpoint.id;
  settings.Gateway = gateway(v4);
  settings.IPAddress = v4 ? formatAddress(v4.cidr.address) : "";
  settings.IPPrefixLen = v4?.cidr.prefix ?? 0;
  settings.IPv6Gateway = gateway(v6);
  settings.GlobalIPv6Address = v6 ? formatAddress(v6.cidr.address) : "";
  settings.GlobalIPv6PrefixLen = v6?.cidr.prefix ?? 0;
  settings.MacAddress = endpoint.mac ? formatMac(endpoint.mac) : "";
  if (endpoint.names.length > 0) settings.DNSNames = endpoint.names;
}

/** Clears what was assigned; keeps what the user asked for. */
export function unassign(settings: EndpointSettings): void {
  settings.MacAddress = wantedMac(settings) ?? "";
  Object.assign(settings, { EndpointID: "", Gateway: "", IPAddress: "", IPPrefixLen: 0, IPv6Gateway: "", GlobalIPv6Address: "" });
  settings.GlobalIPv6PrefixLen = 0;
}

/** The part of inspect's NetworkSettings that repeats the default bridge's endpoint. */
export function settle(record: ContainerRecord, sandbox: Sandbox | undefined): void {
  const first = record.networks.bridge;
  const settings = record.networkSettings as Settings;
  Object.assign(settings, {
    Bridge: "",
    HairpinMode: false,
    LinkLocalIPv6Address: "",
    LinkLocalIPv6PrefixLen: 0,
    SecondaryIPAddresses: null,
    SecondaryIPv6Addresses: null,
    EndpointID: first?.EndpointID ?? "",
    Gateway: first?.Gateway ?? "",
    GlobalIPv6Address: first?.GlobalIPv6Address ?? "",
    GlobalIPv6PrefixLen: first?.GlobalIPv6PrefixLen ?? 0,
    IPAddress: first?.IPAddress ?? "",
    IPPrefixLen: first?.IPPrefixLen ?? 0,
    IPv6Gateway: first?.IPv6Gateway ?? "",
    MacAddress: first?.MacAddress ?? "",
  });
  settings.SandboxID = sandbox?.id ?? "";
  if (!sandbox) {
    settings.SandboxKey = "";
    settings.Ports = {};
  }
}

/** Where `inspect` says the namespace is; a link to the process' own once it runs. */
export const sandboxKey = (state: State, sandbox: Sandbox) => `${state.engine.config.execRoot}/netns/${sandbox.id.slice(0, 12)}`;

export function event(state: State, action: "connect" | "disconnect", network: Network, containerId: string): void {
  state.engine.events.publish("network", action, network.record.id, {
    container: containerId,
    name: network.record.name,
    type: network.record.driver,
  });
}

function attachShared(state: State, record: ContainerRecord, ref: string): NetworkAttachment {
  const other = state.engine.containers.get(ref);
  const pid = state.engine.containers.pid(other.id);
  if (pid === 0) throw conflict(`cannot join network of a non running container: ${other.id}`);
  if (other.id === record.id) throw invalidArgument("cannot join own network");
  const inner = modeOf(other.hostConfig.NetworkMode);
  const files = inner.mode === "container" ? attachShared(state, record, inner.name) : paths(other);
  return {
    netns: `/proc/${pid}/ns/net`,
    mode: "container",
    hostsPath: files.hostsPath,
    resolvConfPath: files.resolvConfPath,
    hostnamePath: files.hostnamePath,
  };
}

export function attach(state: State, record: ContainerRecord): NetworkAttachment {
  if (!state.active) activate(state);
  const { mode, name } = modeOf(record.hostConfig.NetworkMode);
  if (mode === "container") return attachShared(state, record, name);
  if (state.sandboxes.has(record.id)) detach(state, record);

  const sandbox: Sandbox = {
    id: newId(),
    containerId: record.id,
    namespace: mode === "host" ? undefined : state.pool.take(),
    pid: 0,
    endpoints: [],
    ports: { bound: [], published: [] },
    resolver: undefined,
    upstreams: [],
    links: linksOf(record),
    nextIndex: 2,
  };
  try {
    // the network of the mode becomes eth0, the others follow by name
    const names = Object.keys(record.networks);
    const first = names.find((n) => findNetwork(state, n) === findNetwork(state, name)) ?? name;
    record.networks[first] ??= {};
    for (const n of [first, ...names.filter((n) => n !== first).sort()])
      join(state, sandbox, findNetwork(state, n), record, record.networks[n]!);
    routeDefault(sandbox);
    record.networkSettings ??= {};
    const ports = exposedPorts(record);
    const outward = gatewayEndpoint(sandbox);
    if (outward) sandbox.ports = publish(state, outward, planPorts(record), ports);
    writeHosts(state, record, sandbox.endpoints);
    writeResolvConf(state, sandbox, record, mode);
    writeFileSync(paths(record).hostnamePath, `${record.config.Hostname ?? record.id.slice(0, 12)}\n`, { mode: 0o644 });
    resolve(state, sandbox);
    state.sandboxes.set(record.id, sandbox);
    record.networkSettings.Ports = mode === "bridge" ? ports : {};
    record.networkSettings.SandboxKey = mode === "host" ? "/proc/1/ns/net" : sandboxKey(state, sandbox);
    settle(record, sandbox);
  } catch (error) {
    state.sandboxes.delete(record.id);
    dissolve(state, sandbox);
    for (const settings of Object.values(record.networks)) unassign(settings);
    throw error;
  }
  for (const endpoint of sandbox.endpoints) event(state, "connect", endpoint.network, record.id);
  const { namespace } = sandbox;
  return { netns: namespace && `/proc/${process.pid}/fd/${namespace.fd}`, mode, ...paths(record) };
}

/** Takes one endpoint out of a sandbox; answers the host's end of its pair, which is still there. */
export function leave(sandbox: Sandbox, network: Network): string | undefined {
  const at = sandbox.endpoints.findIndex((e) => e.network === network);
  const [endpoint] = at < 0 ? [] : sandbox.endpoints.splice(at, 1);
  if (!endpoint) return undefined;
  network.endpoints.delete(sandbox.containerId);
  releaseAddresses(endpoint);
  return endpoint.veth || undefined;
}

/** Takes everything of a sandbox away. The pairs go with the namespace; where others still live in it, or it is slow to go, by hand. */
function dissolve(state: State, sandbox: Sandbox): void {
  sandbox.resolver?.close();
  unpublish(state, sandbox);
  const shared = sandbox.pid === 0 && sandbox.namespace !== undefined;
  sandbox.namespace?.close();
  sandbox.namespace = undefined;
  for (const endpoint of sandbox.endpoints) {
    endpoint.network.endpoints.delete(sandbox.containerId);
    releaseAddresses(endpoint);
    if (endpoint.veth && !shared) reap(state, endpoint.veth);
  }
  sandbox.endpoints = [];
}

const REAP_AFTER = 500;

/** A pair that outlives its container (somebody else holds the namespace) is removed by hand. */
function reap(state: State, veth: string): void {
  setTimeout(() => {
    if (!state.engine.signal.aborted && findLink(state.route, veth))
      removeLink(veth).catch((error) => state.engine.log("warn", `removing ${veth}: ${error}`));
  }, REAP_AFTER).unref();
}

export function started(state: State, id: string, pid: number): void {
  const sandbox = state.sandboxes.get(id);
  if (!sandbox) return;
  sandbox.pid = pid;
  sandbox.namespace?.close();
  sandbox.namespace = undefined;
  if (sandbox.endpoints.some((e) => e.network.record.driver !== "host")) {
    const key = sandboxKey(state, sandbox);
    try {
      symlinkSync(`/proc/${pid}/ns/net`, key);
    } catch {
      mkdirSync(`${state.engine.config.execRoot}/netns`, { recursive: true, mode: 0o711 });
      rmSync(key, { force: true });
      symlinkSync(`/proc/${pid}/ns/net`, key);
    }
  }
}

export function detach(state: State, record: ContainerRecord): void {
  const sandbox = state.sandboxes.get(record.id);
  if (sandbox) {
    state.sandboxes.delete(record.id);
    const networks = sandbox.endpoints.map((e) => e.network);
    if (sandbox.pid) rmSync(sandboxKey(state, sandbox), { force: true });
    dissolve(state, sandbox);
    for (const network of networks) event(state, "disconnect", network, record.id);
  }
  for (const settings of Object.values(record.networks)) unassign(settings);
  record.networkSettings ??= {};
  settle(record, undefined);
}
