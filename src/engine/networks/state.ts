// What the networks resource remembers: networks (kept in the database) and, in memory only, who is plugged into them. Addresses are not kept
// on disk: a stopped container holds none, and those of running ones stand in their records and in their namespaces.
import type { DatabaseSync } from "node:sqlite";
import type { IPAMConfig } from "../../api/types.ts";
import type { Allocator, ChildKind, Cidr, Namespace, PublishedPort, Resolver } from "../../network/index.ts";

/** Options of networks that are understood. */
export const OPTION = {
  name: "com.docker.network.bridge.name",
  icc: "com.docker.network.bridge.enable_icc",
  masquerade: "com.docker.network.bridge.enable_ip_masquerade",
  hostBinding: "com.docker.network.bridge.host_binding_ipv4",
  defaultBridge: "com.docker.network.bridge.default_bridge",
  mtu: "com.docker.network.driver.mtu",
  parent: "parent",
  macvlanMode: "macvlan_mode",
  ipvlanMode: "ipvlan_mode",
  ipvlanFlag: "ipvlan_flag",
} as const;

export type Driver = "bridge" | "macvlan" | "ipvlan" | "host" | "null";

/** A network as it is kept. */
export interface NetworkRecord {
  /** 64 hex digits. */
  id: string;
  name: string;
  driver: Driver;
  created: string;
  enableIPv4: boolean;
  enableIPv6: boolean;
  ipam: { driver: string; options: Record<string, string> | null; config: IPAMConfig[] };
  internal: boolean;
  attachable: boolean;
  options: Record<string, string>;
  labels: Record<string, string>;
  /** Only what others are made from: nobody is on it. */
  configOnly?: boolean;
  /** Name of the network that this one was made from. */
  configFrom?: string;
}

/** One subnet of a bridge network. */
export interface Subnet {
  cidr: Cidr;
  gateway: Uint8Array;
  allocator: Allocator;
}

/** What the links of a network's containers hang from, where that is no bridge of ours. */
export interface Parent {
  kind: ChildKind;
  /** The host's link. */
  name: string;
  /** It leads nowhere: nobody named one. */
  dummy: boolean;
  mode: number;
  flags: number;
  /** Where the default route goes: to the subnet's gateway, to the link itself (ipvlan on layer 3), or there is none. */
  outward: "gateway" | "link" | undefined;
}

/** A network with what is needed to plug into it: a bridge or a parent, neither for host and none. */
export interface Network {
  record: NetworkRecord;
  predefined: boolean;
  bridge: { name: string; mtu: number; index: number; icc: boolean; masquerade: boolean; hostBinding: string } | undefined;
  parent: Parent | undefined;
  subnets: Subnet[];
  /** By container id. */
  endpoints: Map<string, Endpoint>;
}

/** Whether containers get a link and addresses on it. */
export const hasLinks = (network: Network): boolean => network.bridge !== undefined || network.parent !== undefined;

/** Whether a container reaches the outside by it. */
export const leadsOutside = ({ bridge, parent, record }: Network): boolean =>
  !record.internal && (bridge !== undefined || parent?.outward !== undefined);

/** The gateway that the network's containers use on a subnet; undefined where they use none. */
export const gatewayOf = (network: Network, subnet: Subnet): Uint8Array | undefined =>
  leadsOutside(network) && network.parent?.outward !== "link" ? subnet.gateway : undefined;

/** A container's place on one network. */
export interface Endpoint {
  id: string;
  network: Network;
  containerId: string;
  containerName: string;
  /** The host's end of the pair; "" where there is none. */
  veth: string;
  /** The container's end. */
  interface: string;
  index: number;
  mac: Uint8Array | undefined;
  addresses: { cidr: Cidr; subnet: Subnet }[];
  /** Names that other containers on the network resolve. */
  names: string[];
  gatewayPriority: number;
}

/** A bound port, or what listens on one; ended in the opposite order. */
export interface Held {
  close(): void;
}

/** The network stack of one container. */
export interface Sandbox {
  id: string;
  containerId: string;
  /** Held until the container's process lives in it. */
  namespace: Namespace | undefined;
  /** The container's init; 0 before `started`. */
  pid: number;
  endpoints: Endpoint[];
  ports: { bound: Held[]; published: PublishedPort[] };
  resolver: Resolver | undefined;
  /** Where the resolver passes on what it doesn't know. */
  upstreams: string[];
  /** Names that this container alone uses for others (`--link name:alias`): alias in lower case → name or id. */
  links: Map<string, string>;
}

export interface NetworkStore {
  all(): NetworkRecord[];
  put(record: NetworkRecord): void;
  delete(id: string): void;
}

export function openStore(db: DatabaseSync): NetworkStore {
  db.exec("CREATE TABLE IF NOT EXISTS networks (id TEXT PRIMARY KEY, json TEXT NOT NULL) STRICT");
  const put = db.prepare("INSERT INTO networks (id, json) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET json = excluded.json");
  const remove = db.prepare("DELETE FROM networks WHERE id = ?");
  const all = db.prepare("SELECT json FROM networks");
  return {
    all: () => all.all().map((row) => JSON.parse(String(row.json)) as NetworkRecord),
    put: (record) => void put.run(record.id, JSON.stringify(record)),
    delete: (id) => void remove.run(id),
  };
}
