// What is refused when a container is created, and the endpoint settings as its record keeps them.
import type { EndpointSettings } from "../../api/types.ts";
import { invalidArgument, messageOf, unimplemented } from "../../lib/errors.ts";
import { contains, parseAddress, parseMac } from "../../network/index.ts";
import type { ContainerRecord } from "../context.ts";
import { IFNAME } from "./attach.ts";
import { extraHosts } from "./files.ts";
import { parsePort, planPorts } from "./publish.ts";
import { findNetwork, type State } from "./registry.ts";
import { modeFor, NOTHING_ASSIGNED } from "./settings.ts";
import { hasLinks, type Network } from "./state.ts";

const CONFLICT = {
  ports: "conflicting options: port publishing and the container type network mode",
  expose: "conflicting options: port exposing and the container type network mode",
  dns: "conflicting options: dns and the network mode",
  hosts: "conflicting options: custom host-to-IP mapping and the network mode",
  links: "conflicting options: container type network can't be used with links. This would result in undefined behavior",
  hostLinks: "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
} as const;

function checkAddress(text: string | undefined, length: number, what: string): void {
  if (!text) return;
  const address = parseAddress(text);
  if (address?.length !== length) throw invalidArgument(`invalid endpoint settings:\ninvalid ${what} address: ${text}`);
}

/** Addresses, names and the like of one endpoint, against the network where it exists already. */
export function checkEndpoint(network: Network | undefined, settings: EndpointSettings): void {
  const { IPAMConfig: ipam, MacAddress: mac } = settings;
  checkAddress(ipam?.IPv4Address, 4, "IPv4");
  checkAddress(ipam?.IPv6Address, 16, "IPv6");
  if (mac && !parseMac(mac)) throw invalidArgument(`invalid endpoint settings:\ninvalid MAC address: ${mac}`);
  const { [IFNAME]: ifname, ...others } = settings.DriverOpts ?? {};
  if (ifname && (!/^[^\s/:]{1,15}$/.test(ifname) || /^(\.\.?|lo|all|default)$/.test(ifname)))
    throw invalidArgument(`invalid endpoint settings:\ninvalid interface name: ${ifname}`);
  const unknown = Object.keys(others).find((name) => name.startsWith("com.docker.network.endpoint."));
  if (unknown) throw unimplemented(`the endpoint option ${unknown} is not supported`);
  if (!network) return;
  const wanted = [ipam?.IPv4Address, ipam?.IPv6Address].filter((a): a is string => Boolean(a));
  if (wanted.length > 0 && (network.predefined || !hasLinks(network))) {
    throw invalidArgument(
      "invalid config for network " +
        network.record.name +
        ": invalid endpoint settings:\nuser specified IP address is supported on user defined networks only",
    );
  }
  for (const text of wanted) {
    const address = parseAddress(text)!;
    if (!network.subnets.some((s) => contains(s.cidr, address)))
      throw invalidArgument(
        `invalid config for network ${network.record.name}: invalid endpoint settings:\nno configured subnet contains IP address ${text}`,
      );
  }
  if (settings.Aliases?.length && (network.predefined || !hasLinks(network)) && network.record.name !== "bridge")
    throw invalidArgument(
      `invalid config for network ${network.record.name}: invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks`,
    );
}

/** An endpoint of the request as the record keeps it: what was asked for, nothing assigned. */
export function wantedSettings(settings: EndpointSettings | undefined): EndpointSettings {
  const s = settings ?? {};
  return {
    ...(s.IPAMConfig ? { IPAMConfig: s.IPAMConfig } : {}),
    ...(s.Links ? { Links: s.Links } : {}),
    ...(s.Aliases ? { Aliases: [...s.Aliases] } : {}),
    MacAddress: s.MacAddress ? s.MacAddress.toLowerCase() : "",
    ...(s.DriverOpts ? { DriverOpts: s.DriverOpts } : {}),
    GwPriority: s.GwPriority ?? 0,
    ...NOTHING_ASSIGNED,
  };
}

/** Links of the default network name containers that must exist; on others they are only further names. */
function checkLinks(state: State, links: string[]): void {
  for (const link of links) {
    const name = link.split(":")[0]!;
    let other: ContainerRecord;
    try {
      other = state.engine.containers.get(name.replace(/^\//, ""));
    } catch (error) {
      throw invalidArgument(`could not get container for ${name}: ${messageOf(error)}`);
    }
    if (other.hostConfig.NetworkMode === "host") throw invalidArgument(CONFLICT.hostLinks);
  }
}

export function check(state: State, record: ContainerRecord, endpoints: Record<string, EndpointSettings> | undefined): void {
  const { hostConfig, config } = record;
  const { mode, name } = modeFor(record, state.engine.config.bridge !== "none");
  for (const key of Object.keys(config.ExposedPorts ?? {})) parsePort(key);
  planPorts(record);
  extraHosts(state, record);
  for (const server of hostConfig.Dns ?? [])
    if (!parseAddress(server.split("%")[0]!)) throw invalidArgument(`invalid IP address: ${server}`);

  if (mode === "container") {
    if (name === "") throw invalidArgument("invalid container format container:<name|id>");
    const published = Object.keys(hostConfig.PortBindings ?? {}).length > 0 || hostConfig.PublishAllPorts;
    if (published) throw invalidArgument(CONFLICT.ports);
    if (Object.keys(config.ExposedPorts ?? {}).length > 0) throw invalidArgument(CONFLICT.expose);
    if (hostConfig.Dns?.length) throw invalidArgument(CONFLICT.dns);
    if (hostConfig.ExtraHosts?.length) throw invalidArgument(CONFLICT.hosts);
    if (hostConfig.Links?.length) throw invalidArgument(CONFLICT.links);
    const asked = Object.keys(endpoints ?? {});
    if (asked.some((n) => n !== hostConfig.NetworkMode))
      throw invalidArgument("container sharing network namespace with another container or host cannot be connected to any other network");
    record.networks = {};
    return;
  }
  if (mode === "host" && hostConfig.Links?.length) throw invalidArgument(CONFLICT.hostLinks);

  const networks: Record<string, EndpointSettings> = {};
  const primary = lookup(state, name);
  const primaryName = primary?.record.name ?? name;
  if (primary?.predefined) checkLinks(state, hostConfig.Links ?? []);
  for (const [key, settings] of Object.entries(endpoints ?? {})) {
    const asked = key === "default" ? "bridge" : key;
    const network = lookup(state, asked);
    if (settings !== null && settings !== undefined && typeof settings !== "object")
      throw invalidArgument(`invalid endpoint settings of network ${key}`);
    checkEndpoint(network, settings ?? {});
    networks[network?.record.name ?? asked] = wantedSettings(settings ?? undefined);
  }
  networks[primaryName] ??= wantedSettings(undefined);
  const others = Object.keys(networks).filter((n) => n !== primaryName);
  if (others.length > 0 && mode === "host")
    throw invalidArgument("container sharing network namespace with another container or host cannot be connected to any other network");
  if (others.length > 0 && mode === "none")
    throw invalidArgument("container cannot be connected to multiple networks with one of the networks in private (none) mode");
  // the container-wide --mac-address of old clients is the first network's
  const mac = (config as { MacAddress?: string }).MacAddress;
  if (mac) {
    if (!parseMac(mac)) throw invalidArgument(`invalid MAC address: ${mac}`);
    networks[primaryName].MacAddress ||= mac.toLowerCase();
  }
  record.networks = networks;
  record.networkSettings ??= {};
}

/** A network that does not exist yet is no error at create, as with Docker: the start will say so. */
function lookup(state: State, name: string): Network | undefined {
  try {
    return findNetwork(state, name);
  } catch {
    return undefined;
  }
}
