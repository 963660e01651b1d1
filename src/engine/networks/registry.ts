// The networks that exist, and making them real on the host: bridges and the packet filter.
import { createHash, randomBytes } from "node:crypto";
import { conflict, invalidArgument, messageOf, notFound } from "../../lib/errors.ts";
import { errno, NETLINK_ROUTE, type NetlinkSocket, openNetlink } from "../../linux/index.ts";
import {
  addressOf,
  CHILD_MODES,
  createAllocator,
  createFirewall,
  createForwarder,
  createNamespacePool,
  enableForwarding,
  ensureBridge,
  ensureParent,
  type Firewall,
  type FirewallBridge,
  type Forwarder,
  IPVLAN_FLAGS,
  isErrno,
  macOf,
  type NamespacePool,
  networkOf,
  type PublishedPort,
  parseAddress,
  parseCidr,
} from "../../network/index.ts";
import type { Engine } from "../context.ts";
import {
  hasLinks,
  type Network,
  type NetworkRecord,
  type NetworkStore,
  OPTION,
  openStore,
  type Parent,
  type Sandbox,
  type Subnet,
} from "./state.ts";
import { defaultBridge, firstHost } from "./subnets.ts";

/** Everything this resource holds. */
export interface State {
  engine: Engine;
  store: NetworkStore;
  route: NetlinkSocket;
  firewall: Firewall;
  pool: NamespacePool;
  networks: Map<string, Network>;
  /** By container id. */
  sandboxes: Map<string, Sandbox>;
  active: boolean;
  forwarder: Forwarder;
  /** On links of ours: tells them from another engine's. */
  alias: string;
}

/** A table of its own for each engine on this host. */
function tableName(dataRoot: string): string {
  return dataRoot === "/var/lib/jubako" ? "jubako" : `jubako-${createHash("sha256").update(dataRoot).digest("hex").slice(0, 8)}`;
}

export const newId = (): string => randomBytes(32).toString("hex");

export function truthy(value: string | undefined, absent: boolean): boolean {
  if (value === undefined || value === "") return absent;
  return ["1", "t", "true"].includes(value.toLowerCase());
}

function subnets(record: NetworkRecord): Subnet[] {
  return record.ipam.config.map((config) => {
    const cidr = parseCidr(config.Subnet ?? "");
    if (!cidr) throw invalidArgument(`invalid subnet ${config.Subnet}: invalid CIDR address: ${config.Subnet}`);
    const net = { address: networkOf(cidr), prefix: cidr.prefix };
    const range = config.IPRange ? parseCidr(config.IPRange) : undefined;
    const allocator = createAllocator(net, range);
    const gateway = config.Gateway ? addressOf(config.Gateway.split("/")[0]!) : firstHost(net);
    allocator.take(gateway);
    for (const auxiliary of Object.values(config.AuxiliaryAddresses ?? {})) allocator.take(addressOf(auxiliary));
    return { cidr: net, gateway, allocator };
  });
}

export function bridgeName(record: NetworkRecord): string {
  return record.options[OPTION.name] || `jbk-${record.id.slice(0, 11)}`;
}

export function toNetwork(record: NetworkRecord, predefined: boolean): Network {
  const option = record.options;
  const bridge =
    record.driver === "bridge"
      ? {
          name: bridgeName(record),
          mtu: Number(option[OPTION.mtu] || 1500),
          index: 0,
          icc: truthy(option[OPTION.icc], true),
          masquerade: truthy(option[OPTION.masquerade], true),
          hostBinding: option[OPTION.hostBinding] || "0.0.0.0",
        }
      : undefined;
  const parent = parentOf(record);
  return { record, predefined, bridge, parent, subnets: bridge || parent ? subnets(record) : [], endpoints: new Map() };
}

/** Of a macvlan or ipvlan network; its options were checked when it was made. */
function parentOf(record: NetworkRecord): Parent | undefined {
  const { driver, options, id } = record;
  if (driver !== "macvlan" && driver !== "ipvlan") return undefined;
  const named = options[OPTION.parent];
  const modes = CHILD_MODES[driver];
  const mode = options[driver === "macvlan" ? OPTION.macvlanMode : OPTION.ipvlanMode] || Object.keys(modes)[0]!;
  const dummy = !named || record.internal;
  return {
    kind: driver,
    name: dummy ? `${driver === "macvlan" ? "dm" : "di"}-${id.slice(0, 12)}` : named,
    dummy,
    mode: modes[mode]!,
    flags: IPVLAN_FLAGS[options[OPTION.ipvlanFlag] || "bridge"]!,
    outward: dummy ? undefined : driver === "ipvlan" && mode !== "l2" ? "link" : "gateway",
  };
}

function predefined(name: "bridge" | "host" | "none", driver: NetworkRecord["driver"]): NetworkRecord {
  return {
    id: newId(),
    name,
    driver,
    created: new Date().toISOString(),
    enableIPv4: true,
    enableIPv6: false,
    ipam: { driver: "default", options: null, config: [] },
    internal: false,
    attachable: false,
    options: {},
    labels: {},
  };
}

export function openState(engine: Engine): State {
  const table = tableName(engine.config.dataRoot);
  const state: State = {
    engine,
    store: openStore(engine.db),
    route: openNetlink(NETLINK_ROUTE),
    firewall: createFirewall(table),
    pool: createNamespacePool(engine.config.warmNetworks),
    networks: new Map(),
    sandboxes: new Map(),
    active: false,
    forwarder: createForwarder(),
    alias: `jubako ${table}`,
  };
  const stored = new Map(state.store.all().map((record) => [record.id, record]));
  const byName = (name: string) => [...stored.values()].find((record) => record.name === name);
  for (const record of stored.values()) {
    if (["bridge", "host", "none"].includes(record.name)) continue;
    state.networks.set(record.id, toNetwork(record, false));
  }
  const add = (record: NetworkRecord) => {
    state.store.put(record);
    state.networks.set(record.id, toNetwork(record, true));
  };
  add(byName("host") ?? predefined("host", "host"));
  add(byName("none") ?? predefined("none", "null"));
  if (engine.config.bridge !== "none") {
    const before = byName("bridge");
    add({ ...(before ?? predefined("bridge", "bridge")), ...defaultBridge(state, before) });
  }
  return state;
}

export function firewallBridge(network: Network): FirewallBridge {
  const bridge = network.bridge!;
  return {
    name: bridge.name,
    subnets: network.subnets.map((s) => s.cidr),
    masquerade: bridge.masquerade,
    internal: network.record.internal,
    icc: bridge.icc,
  };
}

/** Makes the link of the host that a network needs, or finds it. */
export function realize(state: State, network: Network): void {
  const { bridge, parent, record } = network;
  if (parent) ensureParent(state.route, { name: parent.name, dummy: parent.dummy, alias: state.alias });
  if (!bridge) return;
  const v4 = network.subnets.find((s) => s.gateway.length === 4);
  bridge.index = ensureBridge(state.route, {
    name: bridge.name,
    mtu: bridge.mtu,
    address: v4 ? macOf(v4.gateway) : Uint8Array.from([0x02, 0x42, ...Buffer.from(record.id.slice(0, 8), "hex")]),
    alias: state.alias,
    gateways: network.subnets.map((s) => ({ address: s.gateway, prefix: s.cidr.prefix })),
  });
}

/** Everything that should be on the host is there afterwards: forwarding, bridges, the packet filter with all published ports. */
export function activate(state: State): void {
  const networks = [...state.networks.values()].filter(hasLinks);
  if (state.engine.config.ipForward) enableForwarding(networks.some((n) => n.record.enableIPv6));
  const real: Network[] = [];
  for (const network of networks) {
    try {
      realize(state, network);
      if (network.bridge) real.push(network);
    } catch (error) {
      if (network.record.name === "bridge") throw error;
      // one broken network must not keep the engine from starting; attaching to it will say why
      state.engine.log("error", `network ${network.record.name}: ${messageOf(error)}`);
    }
  }
  const ports: PublishedPort[] = [...state.sandboxes.values()].flatMap((s) => s.ports.published);
  state.firewall.reset(real.map(firewallBridge), ports);
  if (!state.active) {
    state.active = true;
    if (state.engine.config.bridge !== "none")
      for (const table of state.firewall.inherit(state.engine.config.bridge))
        state.engine.log("info", `removed the nftables table ${table}, which another engine left for this bridge`);
    attend(state);
  }
}

/** Changes the packet filter; where somebody has just flushed it, mends it and tries again. */
export function withFirewall(state: State, change: (firewall: Firewall) => void): void {
  try {
    change(state.firewall);
  } catch (error) {
    if (!isErrno(error, errno.ENOENT)) throw error;
    activate(state);
    change(state.firewall);
  }
}

/** Looks after the packet filter: mends what others flush, and says who stands in the way. */
function attend(state: State): void {
  const { engine, firewall } = state;
  firewall.watch(() => {
    engine.log("warn", "another program removed rules of ours from the packet filter; they are restored");
    try {
      activate(state);
    } catch (error) {
      engine.log("error", `the packet filter: ${messageOf(error)}`);
    }
  });
  for (const chain of firewall.obstacles())
    engine.log(
      "warn",
      `the nftables chain "${chain}" drops forwarded packets by default, also those of containers; see docs/decisions/networking.md`,
    );
}

/** By full id, name, or unambiguous id prefix, in this order. NotFound: "network X not found". */
export function findNetwork(state: State, ref: string): Network {
  const exact = state.networks.get(ref);
  if (exact) return exact;
  for (const network of state.networks.values()) if (network.record.name === ref) return network;
  const matches = ref === "" ? [] : [...state.networks.values()].filter((n) => n.record.id.startsWith(ref));
  if (matches.length > 1) throw invalidArgument(`network ${ref} is ambiguous (${matches.length} matches found on ID prefix)`);
  if (!matches[0]) throw notFound(`network ${ref} not found`);
  return matches[0];
}

/** An address of the wanted kind on a subnet; Conflict where it is taken. */
export function allocate(network: Network, subnet: Subnet, wanted: string | undefined): Uint8Array {
  if (!wanted) return subnet.allocator.next();
  const address = parseAddress(wanted);
  if (!address) throw invalidArgument(`invalid IP address: ${wanted}`);
  if (!subnet.allocator.take(address)) throw conflict(`Address already in use: ${wanted} on network ${network.record.name}`);
  return address;
}

export { errno, isErrno };
