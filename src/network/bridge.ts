// Bridges and what plugs into them: a veth pair per endpoint, its inner end born in the container's namespace.
import { readFileSync, writeFileSync } from "node:fs";
import { failedPrecondition } from "../lib/errors.ts";
import {
  AF_INET,
  AF_INET6,
  addAddress,
  addBridge,
  addRoute,
  addVeth,
  deleteAddress,
  deleteLink,
  errno,
  getLink,
  inNetns,
  type Link,
  type LinkAddress,
  listAddresses,
  NETLINK_ROUTE,
  type NetlinkSocket,
  netlinkMessages,
  requestApart,
  SystemError,
  setBridgePort,
  setLinkAlias,
  setLinkUp,
} from "../linux/index.ts";
import { type Cidr, sameAddress } from "./address.ts";
import type { Namespace } from "./namespace.ts";

export interface BridgeOptions {
  name: string;
  mtu: number;
  address: Uint8Array;
  /** Whose it is. */
  alias: string;
  /** The host's addresses on it; the containers' gateways. */
  gateways: Cidr[];
}

export function isErrno(error: unknown, ...numbers: number[]): boolean {
  return error instanceof SystemError && numbers.includes(error.errno);
}

/** The link, or undefined where there is none. */
export function findLink(route: NetlinkSocket, name: string): Link | undefined {
  try {
    return getLink(route, { name });
  } catch (error) {
    if (isErrno(error, errno.ENODEV)) return undefined;
    throw error;
  }
}

/** Writes a setting below /proc/sys/net of the calling thread's namespace. */
export function sysctl(path: string, value: string): void {
  const file = `/proc/sys/net/${path}`;
  try {
    if (readFileSync(file, "latin1").trim() !== value) writeFileSync(file, value);
  } catch {
    // absent in this kernel (IPv6 switched off), or read-only: what needs it will say so
  }
}

/** Forwarding between the host's links, without which no container reaches the outside. */
export function enableForwarding(v6: boolean): void {
  sysctl("ipv4/ip_forward", "1");
  if (v6) sysctl("ipv6/conf/all/forwarding", "1");
}

/** Makes the bridge as wanted, or brings an existing one to it; answers its index. */
export function ensureBridge(route: NetlinkSocket, bridge: BridgeOptions): number {
  let link = findLink(route, bridge.name);
  if (!link) {
    const m = netlinkMessages();
    addBridge(m, bridge);
    setLinkAlias(m, bridge.name, bridge.alias);
    route.request(m);
    link = getLink(route, { name: bridge.name });
    // as addresses made outside of the kernel's own ways: no router advertisement is obeyed on a bridge of ours
    sysctl(`ipv6/conf/${bridge.name}/accept_ra`, "0");
    sysctl(`ipv6/conf/${bridge.name}/accept_dad`, "0");
    if (!bridge.gateways.some((g) => g.address.length === 16)) sysctl(`ipv6/conf/${bridge.name}/disable_ipv6`, "1");
  }
  if (link.kind !== "bridge") throw failedPrecondition(`the link ${bridge.name} exists and is not a bridge`);
  // left by an engine that had other directories: this one is its heir
  if (link.alias !== bridge.alias && link.alias?.startsWith("jubako")) {
    const m = netlinkMessages(128);
    setLinkAlias(m, bridge.name, bridge.alias);
    route.request(m);
  }
  const index = link.index;
  const present = listAddresses(route).filter((a) => a.index === index);
  const m = netlinkMessages();
  const same = (a: LinkAddress, g: Cidr) => a.prefix === g.prefix && sameAddress(a.local, g.address);
  const linkLocal = (a: LinkAddress) => a.local.length === 16 && a.local[0] === 0xfe && (a.local[1]! & 0xc0) === 0x80;
  // addresses on a bridge that the user made are the user's
  if (link.alias?.startsWith("jubako"))
    for (const a of present) if (!linkLocal(a) && !bridge.gateways.some((g) => same(a, g))) deleteAddress(m, a);
  // a bridge that had no IPv6 before
  if (bridge.gateways.some((g) => g.address.length === 16)) sysctl(`ipv6/conf/${bridge.name}/disable_ipv6`, "0");
  for (const g of bridge.gateways) {
    if (!present.some((a) => same(a, g))) addAddress(m, { index, local: g.address, prefix: g.prefix });
  }
  if (!link.up) setLinkUp(m, { index });
  route.request(m);
  // what comes from localhost to a published port comes back with 127.0.0.1 in the end; the filter's `guard` keeps containers out
  if (bridge.gateways.some((g) => g.address.length === 4)) sysctl(`ipv4/conf/${bridge.name}/route_localnet`, "1");
  return index;
}

/**
 * Whether bridged packets pass the packet filter. Where they do, the filter keeps containers apart that must not meet; where they don't, ports of
 * the bridge are isolated instead. Never both: with br_netfilter, a published port is reached by a bridged frame, which isolation would stop.
 */
export function bridgedPacketsAreFiltered(): boolean {
  try {
    return readFileSync("/proc/sys/net/bridge/bridge-nf-call-iptables", "latin1").trim() === "1";
  } catch {
    return false;
  }
}

export interface EndpointLink {
  /** The host's end. */
  veth: string;
  bridge: number;
  mtu: number;
  /** In the container. */
  name: string;
  mac: Uint8Array;
  addresses: Cidr[];
  /** Bridge ports that must not reach each other. */
  isolated: boolean;
}

/** Plugs a namespace into a bridge: pair, addresses, up; answers the index of the link inside. All or nothing. About 0.7 ms. */
export function plug(route: NetlinkSocket, inside: Namespace, endpoint: EndpointLink): number {
  const m = netlinkMessages();
  addVeth(m, {
    name: endpoint.veth,
    master: endpoint.bridge,
    mtu: endpoint.mtu,
    peer: { name: endpoint.name, netns: inside.fd, address: endpoint.mac },
  });
  if (endpoint.isolated) setBridgePort(m, endpoint.veth, { isolated: true });
  let made = false;
  try {
    route.request(m);
    made = true;
    const { index } = getLink(inside.route, { name: endpoint.name });
    const v6 = endpoint.addresses.some((a) => a.address.length === 16);
    if (v6)
      inNetns(inside.fd, () => {
        // the link's own address, made from a MAC that is unique here, is usable at once instead of after a second's check
        sysctl(`ipv6/conf/${endpoint.name}/accept_dad`, "0");
        sysctl(`ipv6/conf/${endpoint.name}/disable_ipv6`, "0");
      });
    const n = netlinkMessages();
    setLinkUp(n, { index });
    for (const a of endpoint.addresses) addAddress(n, { index, local: a.address, prefix: a.prefix });
    inside.route.request(n);
    return index;
  } catch (error) {
    if (made || endpoint.isolated) unplug(route, endpoint.veth);
    throw error;
  }
}

/** Lets a container reach itself by a port that is published on the host: the frame then leaves by the port of the bridge it came in by. */
export function allowHairpin(route: NetlinkSocket, veth: string): void {
  const m = netlinkMessages(128);
  setBridgePort(m, veth, { hairpin: true });
  route.request(m);
}

export interface DefaultRoute {
  v6: boolean;
  /** undefined: whatever is not on a network of ours is asked for on the link itself. */
  gateway: Uint8Array | undefined;
  index: number;
}

/** The container's default routes; replaces those that are there. */
export function setDefaultRoutes(inside: Namespace, routes: DefaultRoute[]): void {
  const m = netlinkMessages();
  for (const { gateway, index, v6 } of routes) addRoute(m, { family: v6 ? AF_INET6 : AF_INET, index, ...(gateway ? { gateway } : {}) });
  inside.route.request(m);
}

/** Removes a link of the host by its name, off the event loop; harmless where it is gone. The kernel takes tens of milliseconds for it. */
export async function removeLink(name: string): Promise<void> {
  const m = netlinkMessages(64);
  deleteLink(m, { name });
  try {
    await requestApart(NETLINK_ROUTE, m);
  } catch (error) {
    if (!isErrno(error, errno.ENODEV, errno.EINVAL)) throw error;
  }
}

/** Removes a pair by the host's end, now: the event loop waits for it. For undoing what was just made. */
function unplug(route: NetlinkSocket, veth: string): void {
  const m = netlinkMessages(64);
  deleteLink(m, { name: veth });
  try {
    route.request(m);
  } catch {
    // it never came to be
  }
}
