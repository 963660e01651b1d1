// Links that hang from one of the host's: macvlan, each with a MAC of its own, and ipvlan, all with the parent's. They need no bridge and no packet filter;
// the host itself does not reach them (Documentation/networking/ipvlan.rst; macvlan the same).
import { failedPrecondition, invalidArgument } from "../lib/errors.ts";
import {
  addAddress,
  addChild,
  addDummy,
  addVlan,
  deleteLink,
  getLink,
  inNetns,
  type NetlinkSocket,
  netlinkMessages,
  setLinkAlias,
  setLinkUp,
} from "../linux/index.ts";
import type { Cidr } from "./address.ts";
import { findLink, sysctl } from "./bridge.ts";
import type { Namespace } from "./namespace.ts";

export type ChildKind = "macvlan" | "ipvlan";

/** The modes of each kind by their names (linux/if_link.h); the first is the default. */
export const CHILD_MODES: Record<ChildKind, Record<string, number>> = {
  macvlan: { bridge: 4, private: 1, vepa: 2, passthru: 8 },
  ipvlan: { l2: 0, l3: 1, l3s: 2 },
};
export const IPVLAN_FLAGS: Record<string, number> = { bridge: 0, private: 1, vepa: 2 };

/** The parent that a network names: an existing link, or "eth0.50", which is made; without a name one of its own that leads nowhere. */
export function ensureParent(route: NetlinkSocket, parent: { name: string; dummy: boolean; alias: string }): void {
  const { name } = parent;
  const link = findLink(route, name);
  if (link) {
    if (link.index === 1) throw invalidArgument(`loopback interface is not a valid parent link`);
    return;
  }
  const m = netlinkMessages();
  if (parent.dummy) addDummy(m, name);
  else {
    const vlan = /^(.+)\.(\d{1,4})$/.exec(name);
    const id = Number(vlan?.[2]);
    if (!vlan || id < 1 || id > 4094) throw invalidArgument(`invalid subinterface vlan name ${name}, example formatting is eth0.10`);
    const above = findLink(route, vlan[1]!);
    if (!above) throw failedPrecondition(`failed to find master interface ${vlan[1]} on the Docker host`);
    addVlan(m, { name, parent: above.index, id });
  }
  setLinkAlias(m, name, parent.alias);
  route.request(m);
}

export interface ChildLink {
  kind: ChildKind;
  parent: string;
  mode: number;
  flags: number;
  /** In the container. */
  name: string;
  mac: Uint8Array | undefined;
  addresses: Cidr[];
}

/** Plugs a namespace into the parent's network: link, addresses, up; answers the index of the link inside. All or nothing. */
export function plugChild(route: NetlinkSocket, inside: Namespace, child: ChildLink): number {
  const parent = getLink(route, { name: child.parent });
  const m = netlinkMessages();
  const { kind, name, mode, flags, mac } = child;
  addChild(m, { kind, name, parent: parent.index, netns: inside.fd, mode, flags, address: mac });
  route.request(m);
  const { index } = getLink(inside.route, { name });
  try {
    if (child.addresses.some((a) => a.address.length === 16))
      inNetns(inside.fd, () => {
        sysctl(`ipv6/conf/${name}/accept_dad`, "0");
        sysctl(`ipv6/conf/${name}/disable_ipv6`, "0");
      });
    const n = netlinkMessages();
    setLinkUp(n, { index });
    for (const a of child.addresses) addAddress(n, { index, local: a.address, prefix: a.prefix });
    inside.route.request(n);
    return index;
  } catch (error) {
    unplugChild(inside, index);
    throw error;
  }
}

/** Removes a link inside a namespace; harmless where it is gone. */
export function unplugChild(inside: Namespace, index: number): void {
  const m = netlinkMessages(64);
  deleteLink(m, { index });
  try {
    inside.route.request(m);
  } catch {
    // it went before
  }
}
