// Creating and removing networks: what the user asks for, checked, made a record, made real.
import type { IPAMConfig } from "../../api/types.ts";
import { alreadyExists, invalidArgument, messageOf, notFound, permissionDenied, unimplemented } from "../../lib/errors.ts";
import {
  CHILD_MODES,
  type ChildKind,
  type Cidr,
  contains,
  enableForwarding,
  findLink,
  formatAddress,
  formatCidr,
  IPVLAN_FLAGS,
  networkOf,
  overlap,
  parseAddress,
  parseCidr,
  removeLink,
  sameAddress,
} from "../../network/index.ts";
import { activate, errno, firewallBridge, isErrno, newId, realize, type State, toNetwork } from "./registry.ts";
import { type Network, type NetworkRecord, OPTION } from "./state.ts";
import { firstHost, freeSubnet } from "./subnets.ts";

/** The body of POST /networks/create, as far as it was checked for its types. */
export interface CreateRequest {
  Name: string;
  Driver: string;
  Internal: boolean;
  Attachable: boolean;
  Ingress: boolean;
  ConfigOnly: boolean;
  /** Name or id of a config-only network; "" for none. */
  ConfigFrom: string;
  EnableIPv4: boolean;
  EnableIPv6: boolean;
  IPAM: { Driver: string; Options: Record<string, string> | null; Config: IPAMConfig[] };
  Options: Record<string, string>;
  Labels: Record<string, string>;
  Scope: string;
}

const object = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null && !Array.isArray(value);

function strings(value: unknown, what: string): Record<string, string> {
  if (value === undefined || value === null) return {};
  if (!object(value)) throw invalidArgument(`${what}: an object is needed`);
  for (const [key, v] of Object.entries(value))
    if (typeof v !== "string") throw invalidArgument(`${what}: the value of ${key} is not a string`);
  return value as Record<string, string>;
}

/** InvalidArgument where the body is not what the API describes. */
export function parseCreate(body: unknown): CreateRequest {
  if (!object(body)) throw invalidArgument("a JSON object is needed");
  const text = (key: string) => {
    const value = body[key] ?? "";
    if (typeof value !== "string") throw invalidArgument(`${key} is not a string`);
    return value;
  };
  const bool = (key: string, absent = false) => {
    const value = body[key] ?? absent;
    if (typeof value !== "boolean") throw invalidArgument(`${key} is not a boolean`);
    return value;
  };
  const ipam = body.IPAM ?? {};
  if (!object(ipam)) throw invalidArgument("IPAM is not an object");
  const list = ipam.Config ?? [];
  if (!Array.isArray(list) || list.length > 64) throw invalidArgument("IPAM.Config is not a list");
  const config = list.map((entry): IPAMConfig => {
    if (!object(entry)) throw invalidArgument("IPAM.Config: an object is needed");
    const out: IPAMConfig = {};
    for (const key of ["Subnet", "IPRange", "Gateway"] as const) {
      const value = entry[key] ?? "";
      if (typeof value !== "string") throw invalidArgument(`IPAM.Config: ${key} is not a string`);
      if (value !== "") out[key] = value;
    }
    const auxiliary = strings(entry.AuxiliaryAddresses ?? entry.AuxAddress, "IPAM.Config.AuxiliaryAddresses");
    if (Object.keys(auxiliary).length > 0) out.AuxiliaryAddresses = auxiliary;
    return out;
  });
  const from = object(body.ConfigFrom) ? (body.ConfigFrom.Network ?? "") : "";
  if (typeof from !== "string") throw invalidArgument("ConfigFrom.Network is not a string");
  return {
    Name: text("Name"),
    Driver: text("Driver"),
    Internal: bool("Internal"),
    Attachable: bool("Attachable"),
    Ingress: bool("Ingress"),
    ConfigOnly: bool("ConfigOnly"),
    ConfigFrom: from,
    EnableIPv4: bool("EnableIPv4", true),
    EnableIPv6: bool("EnableIPv6"),
    IPAM: {
      Driver: typeof ipam.Driver === "string" ? ipam.Driver : "",
      Options: ipam.Options ? strings(ipam.Options, "IPAM.Options") : null,
      Config: config,
    },
    Options: strings(body.Options, "Options"),
    Labels: strings(body.Labels, "Labels"),
    Scope: text("Scope"),
  };
}

/** One subnet of the request, all its addresses checked. */
function checkConfig(config: IPAMConfig): Cidr {
  const cidr = parseCidr(config.Subnet ?? "");
  if (!cidr) throw invalidArgument(`invalid network config:\ninvalid subnet ${config.Subnet}: invalid CIDR block notation`);
  const net = { address: networkOf(cidr), prefix: cidr.prefix };
  if (!sameAddress(net.address, cidr.address)) {
    throw invalidArgument(`invalid network config:\ninvalid subnet ${config.Subnet}: it should be ${formatCidr(net)}`);
  }
  if (config.IPRange) {
    const range = parseCidr(config.IPRange);
    if (!range) throw invalidArgument(`invalid network config:\ninvalid ip-range ${config.IPRange}: invalid CIDR block notation`);
    if (range.prefix < net.prefix)
      throw invalidArgument(
        `invalid network config:\ninvalid ip-range ${config.IPRange}: CIDR block is bigger than its parent subnet ${config.Subnet}`,
      );
    if (!contains(net, range.address))
      throw invalidArgument(`invalid network config:\ninvalid ip-range ${config.IPRange}: parent subnet is ${config.Subnet}`);
  }
  const inside = (what: string, text: string) => {
    const address = parseAddress(text);
    if (!address) throw invalidArgument(`invalid network config:\ninvalid ${what} ${text}: invalid address`);
    if (!contains(net, address))
      throw invalidArgument(`invalid network config:\ninvalid ${what} ${text}: parent subnet is ${config.Subnet}`);
  };
  if (config.Gateway) inside("gateway", config.Gateway.split("/")[0]!);
  for (const [name, text] of Object.entries(config.AuxiliaryAddresses ?? {})) inside(`auxiliary address ${name}`, text);
  return net;
}

const BOOLEANS = [OPTION.icc, OPTION.masquerade, OPTION.defaultBridge];

function checkOptions(state: State, options: Record<string, string>): void {
  for (const name of BOOLEANS) {
    const value = options[name];
    if (value !== undefined && !/^(1|t|T|TRUE|true|True|0|f|F|FALSE|false|False)$/.test(value))
      throw invalidArgument(`failed to parse ${name} value: ${JSON.stringify(value)} is not a boolean`);
  }
  const mtu = options[OPTION.mtu];
  if (mtu !== undefined && (!/^\d+$/.test(mtu) || Number(mtu) < 68 || Number(mtu) > 65535))
    throw invalidArgument(`invalid MTU number: ${mtu}`);
  const binding = options[OPTION.hostBinding];
  if (binding !== undefined && !parseAddress(binding)) throw invalidArgument(`failed to parse ${OPTION.hostBinding} value: invalid ip`);
  const name = options[OPTION.name];
  if (name !== undefined && name !== "") {
    if (!/^[^\s/:]{1,15}$/.test(name) || name === "." || name === "..") throw invalidArgument(`invalid bridge name: ${name}`);
    for (const n of state.networks.values())
      if (n.bridge?.name === name)
        throw permissionDenied(
          `cannot create network: conflicts with network ${n.record.id} (${n.record.name}): networks have same bridge name`,
        );
    const link = findLink(state.route, name);
    if (link && link.kind !== "bridge") throw permissionDenied(`cannot create network: link ${name} exists and is not a bridge`);
  }
  const gatewayMode =
    options["com.docker.network.bridge.gateway_mode_ipv4"] ?? options["com.docker.network.bridge.gateway_mode_ipv6"] ?? "nat";
  if (gatewayMode !== "nat") throw unimplemented(`gateway mode ${gatewayMode} is not supported; networks are in mode nat`);
}

/** Options of a macvlan or ipvlan network, in the words of Docker's drivers. */
function checkParent(state: State, driver: ChildKind, request: CreateRequest): void {
  const { Options: options } = request;
  const choose = (what: string, option: string, choices: Record<string, number>) => {
    const value = options[option];
    if (value && !(value in choices))
      throw invalidArgument(
        `requested ${what} '${value}' is not valid, '${Object.keys(choices)[0]}' ${what} is the ${driver} driver default`,
      );
  };
  if (driver === "macvlan") choose("macvlan mode", OPTION.macvlanMode, CHILD_MODES.macvlan);
  else {
    choose("ipvlan mode", OPTION.ipvlanMode, CHILD_MODES.ipvlan);
    choose("ipvlan flag", OPTION.ipvlanFlag, IPVLAN_FLAGS);
  }
  const parent = options[OPTION.parent];
  if (!parent) return;
  if (parent === "lo") throw invalidArgument(`loopback interface is not a valid ${driver} parent link`);
  if (!/^[^\s/:]{1,15}$/.test(parent)) throw invalidArgument(`invalid parent interface name: ${parent}`);
  if (request.Internal) return;
  for (const other of state.networks.values())
    if (other.parent?.name === parent) throw permissionDenied(`network ${other.record.id} is already using parent interface ${parent}`);
}

/** A network that others are made from: what it says is kept as it is, nothing comes to the host. */
function createConfiguration(state: State, request: CreateRequest): Network {
  if (request.ConfigFrom) throw permissionDenied("a configuration network cannot depend on another configuration network");
  if (request.Internal || request.Attachable || request.Ingress || request.Scope)
    throw permissionDenied(
      "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.",
    );
  const config = request.IPAM.Config.filter(({ Subnet }) => Subnet);
  for (const entry of config) checkConfig(entry);
  const record: NetworkRecord = {
    id: newId(),
    name: request.Name,
    driver: "null",
    created: new Date().toISOString(),
    enableIPv4: request.EnableIPv4,
    enableIPv6: request.EnableIPv6,
    ipam: { driver: "default", options: request.IPAM.Options, config },
    internal: false,
    attachable: false,
    options: request.Options,
    labels: request.Labels,
    configOnly: true,
  };
  state.store.put(record);
  const network = toNetwork(record, false);
  state.networks.set(record.id, network);
  state.engine.events.publish("network", "create", record.id, { name: record.name, type: record.driver });
  return network;
}

/** The request with what the configuration network says in the place of what it must not say itself. */
function configured(state: State, request: CreateRequest): CreateRequest {
  const { ConfigFrom: from, IPAM: ipam } = request;
  if (!from) return request;
  const found = [...state.networks.values()].find(({ record }) => record.configOnly && (record.name === from || record.id === from));
  if (!found) throw notFound(`configuration network "${from}" does not exist`);
  const said = request.EnableIPv6 || Object.keys(request.Labels).length || Object.keys(ipam.Options ?? {}).length || ipam.Config.length;
  if (said || Object.keys(request.Options).length)
    throw permissionDenied("user specified configurations are not supported if the network depends on a configuration network");
  const { enableIPv4, enableIPv6, options, labels, name } = found.record;
  return {
    ...request,
    ConfigFrom: name,
    EnableIPv4: enableIPv4,
    EnableIPv6: enableIPv6,
    Options: options,
    Labels: labels,
    IPAM: { Driver: "default", Options: found.record.ipam.options, Config: found.record.ipam.config },
  };
}

/** Makes a network; answers it. */
export function createNetwork(state: State, asked: CreateRequest): Network {
  const request = asked.ConfigOnly ? asked : configured(state, asked);
  if (!state.active) activate(state);
  const name = request.Name;
  if (name.trim() === "") throw invalidArgument("invalid name: name is empty");
  if (["bridge", "host", "none", "default"].includes(name))
    throw permissionDenied(`operation is not permitted on predefined ${name} network`);
  if (name.startsWith("container:") || name.length > 255) throw invalidArgument(`invalid network name: ${name}`);
  for (const n of state.networks.values()) if (n.record.name === name) throw alreadyExists(`network with name ${name} already exists`);
  if (request.ConfigOnly) return createConfiguration(state, request);
  const driver = request.Driver || "bridge";
  if (driver === "host" || driver === "null") throw permissionDenied(`only one instance of "${driver}" network is allowed`);
  if (driver === "overlay") throw unimplemented(`the network driver ${driver} is not supported`);
  if (driver !== "bridge" && driver !== "macvlan" && driver !== "ipvlan") throw notFound(`plugin "${driver}" not found`);
  if (request.Ingress) throw unimplemented("ingress networks are not supported: they belong to swarm mode");
  if (request.Scope && request.Scope !== "local") throw unimplemented(`networks of scope ${request.Scope} are not supported`);
  if (request.IPAM.Driver && request.IPAM.Driver !== "default") throw notFound(`plugin "${request.IPAM.Driver}" not found`);
  if (driver === "bridge") checkOptions(state, request.Options);
  else checkParent(state, driver, request);

  const config: IPAMConfig[] = [];
  const chosen: Cidr[] = [];
  let v6 = false;
  for (const entry of request.IPAM.Config) {
    if (!entry.Subnet) {
      if (entry.Gateway || entry.IPRange) throw invalidArgument("invalid network config:\nan IP range or gateway needs a subnet");
      continue;
    }
    const net = checkConfig(entry);
    const ipv6 = net.address.length === 16;
    if (ipv6 && !request.EnableIPv6) continue;
    if (!ipv6 && !request.EnableIPv4) continue;
    v6 ||= ipv6;
    if ([...state.networks.values()].some((n) => n.subnets.some((s) => overlap(s.cidr, net))) || chosen.some((c) => overlap(c, net)))
      throw permissionDenied("invalid pool request: Pool overlaps with other one on this address space");
    chosen.push(net);
    config.push({ ...entry, Subnet: formatCidr(net), Gateway: entry.Gateway?.split("/")[0] ?? formatAddress(firstHost(net)) });
  }
  if (!request.EnableIPv4 && !request.EnableIPv6) throw invalidArgument("IPv4 or IPv6 must be enabled");
  if (request.EnableIPv4 && !chosen.some((c) => c.address.length === 4)) {
    config.unshift(freeSubnet(state, 4));
  }
  if (request.EnableIPv6 && !v6) {
    config.push(freeSubnet(state, 16));
  }

  const record: NetworkRecord = {
    id: newId(),
    name,
    driver,
    created: new Date().toISOString(),
    enableIPv4: request.EnableIPv4,
    enableIPv6: request.EnableIPv6,
    ipam: { driver: "default", options: request.IPAM.Options, config },
    internal: request.Internal,
    attachable: request.Attachable,
    options: request.Options,
    labels: request.Labels,
    ...(request.ConfigFrom ? { configFrom: request.ConfigFrom } : {}),
  };
  const network = toNetwork(record, false);
  // the record first: a link without one would be an orphan after a crash, a record without its link is made whole at the next start
  state.store.put(record);
  state.networks.set(record.id, network);
  try {
    if (record.enableIPv6 && state.engine.config.ipForward) enableForwarding(true);
    realize(state, network);
    try {
      if (network.bridge) state.firewall.addBridge(firewallBridge(network));
    } catch (error) {
      // somebody has just flushed the rules: all are made anew, this network's with them
      if (!isErrno(error, errno.ENOENT)) throw error;
      activate(state);
    }
  } catch (error) {
    state.networks.delete(record.id);
    state.store.delete(record.id);
    const link = network.bridge?.name ?? network.parent?.name;
    if (link && findLink(state.route, link)?.alias === state.alias) removeLink(link).catch(() => {});
    throw error;
  }
  state.engine.events.publish("network", "create", record.id, { name, type: record.driver });
  return network;
}

/** Removes a network that nobody is on. */
export async function removeNetwork(state: State, network: Network): Promise<void> {
  const { record, bridge, parent } = network;
  if (network.predefined) throw permissionDenied(`${record.name} is a pre-defined network and cannot be removed`);
  if (record.configOnly && [...state.networks.values()].some((n) => n.record.configFrom === record.name))
    throw permissionDenied(`error while removing network: configuration network "${record.name}" is in use`);
  if (network.endpoints.size > 0) {
    const who = [...network.endpoints.values()].map((e) => `name:"${e.containerName}" id:"${e.containerId.slice(0, 12)}"`).join(", ");
    throw permissionDenied(`error while removing network: network ${record.name} has active endpoints (${who})`);
  }
  state.networks.delete(record.id);
  state.store.delete(record.id);
  if (bridge) {
    try {
      state.firewall.removeBridge(firewallBridge(network));
    } catch (error) {
      state.engine.log("warn", `network ${record.name}: ${messageOf(error)}`);
    }
  }
  // what the user made and named is theirs
  const link = bridge?.name ?? parent?.name;
  if (link && findLink(state.route, link)?.alias === state.alias) await removeLink(link);
  state.engine.events.publish("network", "destroy", record.id, { name: record.name, type: record.driver });
}
