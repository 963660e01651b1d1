// rtnetlink (rtnetlink(7), include/uapi/linux/rtnetlink.h, if_link.h): links, addresses, routes, neighbours.
import {
  attributeString,
  attributes,
  attributeU32,
  type Messages,
  type NetlinkSocket,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  netlinkMessages,
} from "./netlink.ts";

export const AF_INET = 2;
export const AF_INET6 = 10;

const RTM_NEWLINK = 16;
const RTM_DELLINK = 17;
const RTM_GETLINK = 18;
const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_GETADDR = 22;
const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;

const IFF_UP = 1;
const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_LINKINFO = 18;
const IFLA_NET_NS_FD = 28;
const IFLA_IFALIAS = 20;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const IFLA_INFO_SLAVE_KIND = 4;
const IFLA_INFO_SLAVE_DATA = 5;
const VETH_INFO_PEER = 1;
const IFLA_VLAN_ID = 1;
const IFLA_MACVLAN_MODE = 1;
const IFLA_IPVLAN_MODE = 1;
const IFLA_IPVLAN_FLAGS = 2;
const IFLA_BRPORT_MODE = 4;
const IFLA_BRPORT_ISOLATED = 33;

const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_BROADCAST = 4;
const IFA_FLAGS = 8;
const IFA_F_NODAD = 2;
const IFA_F_PERMANENT = 0x80;

const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PREFSRC = 7;
const RTA_TABLE = 15;
const RT_TABLE_MAIN = 254;
const RTPROT_BOOT = 3;
const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;
const RTN_UNICAST = 1;

function ifinfo(m: Messages, index: number, flags = 0, change = 0): void {
  m.u32(0);
  m.u32(index);
  m.u32(flags);
  m.u32(change);
}

/** Brings a link up or down; by index, or by name where index is 0. */
export function setLinkUp(m: Messages, link: { index?: number; name?: string }, up = true): void {
  m.message(RTM_NEWLINK, NLM_F_ACK, `set link ${link.name ?? link.index} ${up ? "up" : "down"}`);
  ifinfo(m, link.index ?? 0, up ? IFF_UP : 0, IFF_UP);
  if (!link.index && link.name) m.attrString(IFLA_IFNAME, link.name);
}

/** Gives a link to another network namespace, under a name that is free there; it is down then and has no addresses. EEXIST where the name is taken. */
export function moveLink(m: Messages, link: { index: number; netns: number; name: string }): void {
  m.message(RTM_NEWLINK, NLM_F_ACK, `move link ${link.name}`);
  ifinfo(m, link.index, 0, IFF_UP);
  m.attrU32(IFLA_NET_NS_FD, link.netns);
  m.attrString(IFLA_IFNAME, link.name);
}

/** A note on a link, for people and for knowing it again. */
export function setLinkAlias(m: Messages, name: string, alias: string): void {
  m.message(RTM_NEWLINK, NLM_F_ACK, `set alias of link ${name}`);
  ifinfo(m, 0);
  m.attrString(IFLA_IFNAME, name);
  m.attrString(IFLA_IFALIAS, alias);
}

export interface VethOptions {
  /** This end: in the socket's namespace, up, in the bridge with this index. */
  name: string;
  master: number | undefined;
  mtu: number;
  address?: Uint8Array;
  peer: { name: string; netns: number; address: Uint8Array | undefined };
}

/**
 * A pair of veths: this end up, the peer born inside the other namespace with its name and address, but still down (the kernel's
 * veth_open refuses while the pair is half made). EEXIST where a name is taken.
 */
export function addVeth(m: Messages, veth: VethOptions): void {
  m.message(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, `create veth ${veth.name}`);
  ifinfo(m, 0, IFF_UP, IFF_UP);
  m.attrString(IFLA_IFNAME, veth.name);
  m.attrU32(IFLA_MTU, veth.mtu);
  if (veth.address) m.attr(IFLA_ADDRESS, veth.address);
  if (veth.master !== undefined) m.attrU32(IFLA_MASTER, veth.master);
  m.nest(IFLA_LINKINFO, () => {
    m.attrString(IFLA_INFO_KIND, "veth");
    m.nest(IFLA_INFO_DATA, () =>
      m.nest(VETH_INFO_PEER, () => {
        ifinfo(m, 0);
        m.attrString(IFLA_IFNAME, veth.peer.name);
        m.attrU32(IFLA_MTU, veth.mtu);
        if (veth.peer.address) m.attr(IFLA_ADDRESS, veth.peer.address);
        m.attrU32(IFLA_NET_NS_FD, veth.peer.netns);
      }),
    );
  });
}

/** A bridge, up, without spanning tree. A fixed address, as else it would change with its ports and stale the containers' neighbour tables. */
export function addBridge(m: Messages, bridge: { name: string; mtu: number; address: Uint8Array }): void {
  m.message(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, `create bridge ${bridge.name}`);
  ifinfo(m, 0, IFF_UP, IFF_UP);
  m.attrString(IFLA_IFNAME, bridge.name);
  m.attrU32(IFLA_MTU, bridge.mtu);
  m.attr(IFLA_ADDRESS, bridge.address);
  m.nest(IFLA_LINKINFO, () => m.attrString(IFLA_INFO_KIND, "bridge"));
}

/** Options of a bridge's port: hairpin sends a frame back where it came from; isolated ports reach the bridge itself but not each other. */
/** A link that leads nowhere: what hangs from it reaches only each other. */
export function addDummy(m: Messages, name: string): void {
  m.message(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, `create dummy ${name}`);
  ifinfo(m, 0, IFF_UP, IFF_UP);
  m.attrString(IFLA_IFNAME, name);
  m.nest(IFLA_LINKINFO, () => m.attrString(IFLA_INFO_KIND, "dummy"));
}

/** A link for the frames of another one that carry this VLAN tag (802.1Q). */
export function addVlan(m: Messages, vlan: { name: string; parent: number; id: number }): void {
  m.message(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, `create vlan ${vlan.name}`);
  ifinfo(m, 0, IFF_UP, IFF_UP);
  m.attrString(IFLA_IFNAME, vlan.name);
  m.attrU32(IFLA_LINK, vlan.parent);
  m.nest(IFLA_LINKINFO, () => {
    m.attrString(IFLA_INFO_KIND, "vlan");
    m.nest(IFLA_INFO_DATA, () => m.attr(IFLA_VLAN_ID, Uint8Array.of(vlan.id & 0xff, vlan.id >> 8)));
  });
}

export interface ChildOptions {
  kind: "macvlan" | "ipvlan";
  name: string;
  /** Index of the link that it hangs from, in the namespace of the socket. */
  parent: number;
  /** Descriptor of the namespace that it is born in. */
  netns: number;
  /** MACVLAN_MODE_* or IPVLAN_MODE_* (linux/if_link.h). */
  mode: number;
  /** IPVLAN_F_*. */
  flags: number;
  /** undefined: the kernel's choice, for ipvlan the parent's. */
  address: Uint8Array | undefined;
}

export function addChild(m: Messages, child: ChildOptions): void {
  m.message(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, `create ${child.kind} ${child.name}`);
  ifinfo(m, 0);
  m.attrString(IFLA_IFNAME, child.name);
  m.attrU32(IFLA_LINK, child.parent);
  m.attrU32(IFLA_NET_NS_FD, child.netns);
  if (child.address) m.attr(IFLA_ADDRESS, child.address);
  m.nest(IFLA_LINKINFO, () => {
    m.attrString(IFLA_INFO_KIND, child.kind);
    m.nest(IFLA_INFO_DATA, () => {
      if (child.kind === "macvlan") m.attrU32(IFLA_MACVLAN_MODE, child.mode);
      else {
        m.attr(IFLA_IPVLAN_MODE, Uint8Array.of(child.mode, 0));
        m.attr(IFLA_IPVLAN_FLAGS, Uint8Array.of(child.flags, 0));
      }
    });
  });
}

export function setBridgePort(m: Messages, name: string, options: { hairpin?: boolean; isolated?: boolean }): void {
  m.message(RTM_NEWLINK, NLM_F_ACK, `set bridge port ${name}`);
  ifinfo(m, 0);
  m.attrString(IFLA_IFNAME, name);
  m.nest(IFLA_LINKINFO, () => {
    m.attrString(IFLA_INFO_SLAVE_KIND, "bridge");
    m.nest(IFLA_INFO_SLAVE_DATA, () => {
      if (options.hairpin !== undefined) m.attrU8(IFLA_BRPORT_MODE, options.hairpin ? 1 : 0);
      if (options.isolated !== undefined) m.attrU8(IFLA_BRPORT_ISOLATED, options.isolated ? 1 : 0);
    });
  });
}

/** Deletes a link by index or name. Tens of milliseconds: the kernel waits for everyone who may still see it. */
export function deleteLink(m: Messages, link: { index?: number; name?: string }): void {
  m.message(RTM_DELLINK, NLM_F_ACK, `delete link ${link.name ?? link.index}`);
  ifinfo(m, link.index ?? 0);
  if (!link.index && link.name) m.attrString(IFLA_IFNAME, link.name);
}

export function addAddress(m: Messages, address: { index: number; local: Uint8Array; prefix: number }): void {
  const { local, prefix, index } = address;
  m.message(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, `add address to link ${index}`);
  const v4 = local.length === 4;
  m.u8(v4 ? AF_INET : AF_INET6);
  m.u8(prefix);
  m.u8(v4 ? IFA_F_PERMANENT : IFA_F_PERMANENT | IFA_F_NODAD);
  m.u8(RT_SCOPE_UNIVERSE);
  m.u32(index);
  m.attr(IFA_LOCAL, local);
  m.attr(IFA_ADDRESS, local);
  if (v4 && prefix < 31) {
    const broadcast = local.slice();
    for (let bit = prefix; bit < 32; bit++) broadcast[bit >> 3]! |= 0x80 >> (bit & 7);
    m.attr(IFA_BROADCAST, broadcast);
  }
}

export function deleteAddress(m: Messages, address: { index: number; local: Uint8Array; prefix: number }): void {
  m.message(RTM_DELADDR, NLM_F_ACK, `delete address of link ${address.index}`);
  m.u8(address.local.length === 4 ? AF_INET : AF_INET6);
  m.u8(address.prefix);
  m.u8(0);
  m.u8(0);
  m.u32(address.index);
  m.attr(IFA_LOCAL, address.local);
}

export interface RouteOptions {
  family: typeof AF_INET | typeof AF_INET6;
  /** undefined: the default route. */
  destination?: { address: Uint8Array; prefix: number };
  gateway?: Uint8Array;
  index: number;
}

function route(m: Messages, options: RouteOptions): void {
  m.u8(options.family);
  m.u8(options.destination?.prefix ?? 0);
  m.u8(0);
  m.u8(0);
  m.u8(RT_TABLE_MAIN);
  m.u8(RTPROT_BOOT);
  m.u8(options.gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK);
  m.u8(RTN_UNICAST);
  m.u32(0);
  if (options.destination) m.attr(RTA_DST, options.destination.address);
  if (options.gateway) m.attr(RTA_GATEWAY, options.gateway);
  m.attrU32(RTA_OIF, options.index);
}

export function addRoute(m: Messages, options: RouteOptions): void {
  m.message(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, options.destination ? "add route" : "add default route");
  route(m, options);
}

export function deleteRoute(m: Messages, options: RouteOptions): void {
  m.message(RTM_DELROUTE, NLM_F_ACK, options.destination ? "delete route" : "delete default route");
  route(m, options);
}

export interface Link {
  index: number;
  name: string;
  up: boolean;
  mtu: number;
  kind: string | undefined;
  /** Index of the bridge it is a port of. */
  master: number | undefined;
  /** Index of the other end (a veth's, in the other end's namespace). */
  peer: number | undefined;
  address: Uint8Array | undefined;
  alias: string | undefined;
}

function parseLink(body: Uint8Array): Link {
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  const at = attributes(body, 16);
  const info = at.get(IFLA_LINKINFO);
  return {
    index: view.getInt32(4, true),
    name: attributeString(at.get(IFLA_IFNAME)) ?? "",
    up: (view.getUint32(8, true) & IFF_UP) !== 0,
    mtu: attributeU32(at.get(IFLA_MTU)) ?? 0,
    kind: info ? attributeString(attributes(info).get(IFLA_INFO_KIND)) : undefined,
    master: attributeU32(at.get(IFLA_MASTER)),
    peer: attributeU32(at.get(IFLA_LINK)),
    address: at.get(IFLA_ADDRESS),
    alias: attributeString(at.get(IFLA_IFALIAS)),
  };
}

export function listLinks(socket: NetlinkSocket): Link[] {
  const m = netlinkMessages(64);
  m.message(RTM_GETLINK, NLM_F_DUMP, "list links");
  ifinfo(m, 0);
  return socket
    .request(m)
    .filter((r) => r.type === RTM_NEWLINK)
    .map((r) => parseLink(r.body));
}

/** One link by name or index. ENODEV where there is none. */
export function getLink(socket: NetlinkSocket, link: { name?: string; index?: number }): Link {
  const m = netlinkMessages(64);
  m.message(RTM_GETLINK, 0, `look up link ${link.name ?? link.index}`);
  ifinfo(m, link.index ?? 0);
  if (link.name) m.attrString(IFLA_IFNAME, link.name);
  return parseLink(socket.request(m)[0]!.body);
}

export interface LinkAddress {
  index: number;
  local: Uint8Array;
  prefix: number;
  flags: number;
  /** RT_SCOPE_…; 0: of the whole network. */
  scope: number;
}

export function listAddresses(socket: NetlinkSocket): LinkAddress[] {
  const m = netlinkMessages(64);
  m.message(RTM_GETADDR, NLM_F_DUMP, "list addresses");
  m.u32(0);
  m.u32(0);
  return socket
    .request(m)
    .filter((r) => r.type === RTM_NEWADDR)
    .flatMap(({ body }) => {
      const at = attributes(body, 8);
      const local = at.get(IFA_LOCAL) ?? at.get(IFA_ADDRESS);
      const index = new DataView(body.buffer, body.byteOffset).getUint32(4, true);
      return local ? [{ index, local, prefix: body[1]!, flags: attributeU32(at.get(IFA_FLAGS)) ?? body[2]!, scope: body[3]! }] : [];
    });
}

export interface Route {
  family: number;
  destination: Uint8Array | undefined;
  prefix: number;
  gateway: Uint8Array | undefined;
  index: number | undefined;
  source: Uint8Array | undefined;
  table: number;
  type: number;
}

export function listRoutes(socket: NetlinkSocket): Route[] {
  const m = netlinkMessages(64);
  m.message(RTM_GETROUTE, NLM_F_DUMP, "list routes");
  for (let i = 0; i < 3; i++) m.u32(0);
  return socket
    .request(m)
    .filter((r) => r.type === RTM_NEWROUTE)
    .map(({ body }) => {
      const at = attributes(body, 12);
      return {
        family: body[0]!,
        destination: at.get(RTA_DST),
        prefix: body[1]!,
        gateway: at.get(RTA_GATEWAY),
        index: attributeU32(at.get(RTA_OIF)),
        source: at.get(RTA_PREFSRC),
        table: attributeU32(at.get(RTA_TABLE)) ?? body[4]!,
        type: body[7]!,
      };
    });
}
