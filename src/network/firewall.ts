// The packet filter: one table of ours, constant rules over sets and maps. A bridge or a published port adds elements, never rules, so that
// neither a start nor a packet costs more with more containers. No other table is touched, and our chains accept what they don't know.
//
// What a reader of `nft list table inet jubako` sees:
//   guard        prerouting, raw: nobody on a bridge talks to the host's 127.0.0.0/8 (route_localnet is on there, for published ports)
//   prerouting   a packet for one of the host's addresses goes through `publish`
//   output       the same for the host's own packets
//   publish      dnat by protocol and port, first where published on that very address, then where published on all
//   postrouting  masquerade: a bridge's container reaching its own bridge by a published port; localhost; then what leaves for elsewhere.
//                What goes to a bridge keeps its source.
//   forward      within a bridge: accept (bridged packets pass here only with br_netfilter); into a bridge: replies and published ports; all else into a bridge: drop; internal ones: closed
import {
  CT_ESTABLISHED_RELATED,
  CT_STATUS_DNAT,
  compare,
  connection,
  countRules,
  destinationIsLocal,
  dnat,
  type Element,
  type Expression,
  fields,
  HOOK,
  listDroppingChains,
  listElements,
  listTables,
  lookup,
  mask,
  masquerade,
  meta,
  NETLINK_NETFILTER,
  type NetlinkSocket,
  NFPROTO_INET,
  NFPROTO_IPV4,
  NFPROTO_IPV6,
  nftTransaction,
  openNetlink,
  payload,
  portField,
  type Transaction,
  verdict,
  watchRemovals,
} from "../linux/index.ts";
import { type Cidr, fromNumber, lastOf, networkOf, toNumber } from "./address.ts";

export interface FirewallBridge {
  name: string;
  subnets: Cidr[];
  /** What leaves the bridge gets the host's address. */
  masquerade: boolean;
  /** Closed to and from everything but the host. */
  internal: boolean;
  /** Its containers reach each other without a published port. Counts where the kernel shows bridged packets to the filter (br_netfilter). */
  icc: boolean;
}

export interface PublishedPort {
  protocol: "tcp" | "udp" | "sctp";
  /** All zero: every address of the host. */
  hostAddress: Uint8Array;
  hostPort: number;
  address: Uint8Array;
  port: number;
}

export interface Firewall {
  /** Makes the table anew, whole, in one transaction. */
  reset(bridges: FirewallBridge[], ports: PublishedPort[]): void;
  addBridge(bridge: FirewallBridge): void;
  removeBridge(bridge: FirewallBridge): void;
  publish(ports: PublishedPort[]): void;
  /** Harmless where some are gone. */
  unpublish(ports: PublishedPort[]): void;
  /** How many ports the kernel holds. */
  published(): number;
  /** Calls back when another program took the table or some of its rules away; what is there then is for `reset` to mend. */
  watch(callback: () => void): void;
  /** Chains of other programs that drop forwarded packets they don't know: an acceptance of ours cannot overrule them. */
  obstacles(): string[];
  /** Removes tables that other engines left for a bridge of this name; their elements would send packets astray. Answers their names. */
  inherit(bridge: string): string[];
  /** Removes the table. */
  remove(): void;
  close(): void;
}

/** After a change of others, until it is looked at: a reload is many changes. Milliseconds. */
const SETTLE = 100;

const PROTOCOL = { tcp: 6, udp: 17, sctp: 132 } as const;

const ipv4: Expression[] = [meta("nfproto"), compare("eq", Uint8Array.of(NFPROTO_IPV4))];
const ipv6: Expression[] = [meta("nfproto"), compare("eq", Uint8Array.of(NFPROTO_IPV6))];
const loopback = (op: "eq" | "neq", offset: number): Expression[] => [
  payload("network", offset, 4),
  mask(Uint8Array.of(255, 0, 0, 0)),
  compare(op, Uint8Array.of(127, 0, 0, 0)),
];
const SOURCE4 = 12;
const DESTINATION4 = 16;
const SOURCE6 = 8;
const DESTINATION6 = 24;

/** Adds sets, chains and rules; answers how many rules. */
function constantRules(transaction: Transaction): number {
  let count = 0;
  const t: Transaction = {
    ...transaction,
    rule(chain, ...expressions) {
      count++;
      transaction.rule(chain, ...expressions);
    },
  };
  t.set({ name: "bridges", key: ["ifname"] });
  t.set({ name: "internal", key: ["ifname"] });
  t.set({ name: "same", key: ["ifname", "ifname"] });
  t.set({ name: "own4", key: ["ifname", "ipv4_addr"], interval: true });
  t.set({ name: "own6", key: ["ifname", "ipv6_addr"], interval: true });
  t.set({ name: "masquerade4", key: ["ipv4_addr"], interval: true });
  t.set({ name: "masquerade6", key: ["ipv6_addr"], interval: true });
  t.set({ name: "ports4", key: ["inet_proto", "inet_service"], data: ["ipv4_addr", "inet_service"] });
  t.set({ name: "ports6", key: ["inet_proto", "inet_service"], data: ["ipv6_addr", "inet_service"] });
  t.set({ name: "ports4_at", key: ["ipv4_addr", "inet_proto", "inet_service"], data: ["ipv4_addr", "inet_service"] });
  t.set({ name: "ports6_at", key: ["ipv6_addr", "inet_proto", "inet_service"], data: ["ipv6_addr", "inet_service"] });

  t.baseChain("guard", "filter", HOOK.prerouting, -300);
  t.rule("guard", meta("iifname"), lookup("bridges"), ipv4, loopback("eq", DESTINATION4), verdict("drop"));

  t.chain("publish");
  // registers: the key from 0 on, the datum (address, port) from 8 on
  t.rule(
    "publish",
    ipv4,
    payload("network", DESTINATION4, 4, 0),
    meta("l4proto", 1),
    payload("transport", 2, 2, 2),
    lookup("ports4_at", { data: 8 }),
    dnat(NFPROTO_IPV4, 8, 9),
  );
  t.rule("publish", ipv4, meta("l4proto", 0), payload("transport", 2, 2, 1), lookup("ports4", { data: 8 }), dnat(NFPROTO_IPV4, 8, 9));
  t.rule(
    "publish",
    ipv6,
    payload("network", DESTINATION6, 16, 0),
    meta("l4proto", 4),
    payload("transport", 2, 2, 5),
    lookup("ports6_at", { data: 8 }),
    dnat(NFPROTO_IPV6, 8, 12),
  );
  t.rule("publish", ipv6, meta("l4proto", 0), payload("transport", 2, 2, 1), lookup("ports6", { data: 8 }), dnat(NFPROTO_IPV6, 8, 12));

  t.baseChain("prerouting", "nat", HOOK.prerouting, -100);
  // never for 127.0.0.0/8 from outside: a neighbour could else reach what is published on localhost only (moby GHSA-x4rx-4gw3-53p4)
  t.rule("prerouting", ipv4, loopback("neq", DESTINATION4), destinationIsLocal, verdict("jump", "publish"));
  t.rule("prerouting", ipv6, destinationIsLocal, verdict("jump", "publish"));
  t.baseChain("output", "nat", HOOK.output, -100);
  t.rule("output", destinationIsLocal, verdict("jump", "publish"));

  t.baseChain("postrouting", "nat", HOOK.postrouting, 100);
  const viaPort = connection("status", CT_STATUS_DNAT);
  t.rule("postrouting", ipv4, viaPort, meta("oifname", 0), payload("network", SOURCE4, 4, 4), lookup("own4"), masquerade);
  t.rule("postrouting", ipv6, viaPort, meta("oifname", 0), payload("network", SOURCE6, 16, 4), lookup("own6"), masquerade);
  t.rule("postrouting", ipv4, meta("oifname"), lookup("bridges"), loopback("eq", SOURCE4), masquerade);
  t.rule("postrouting", meta("oifname"), lookup("bridges"), verdict("accept"));
  t.rule("postrouting", ipv4, payload("network", SOURCE4, 4), lookup("masquerade4"), masquerade);
  t.rule("postrouting", ipv6, payload("network", SOURCE6, 16), lookup("masquerade6"), masquerade);

  t.baseChain("forward", "filter", HOOK.forward, 0);
  t.rule("forward", meta("iifname", 0), meta("oifname", 4), lookup("same"), verdict("accept"));
  t.rule("forward", meta("iifname"), lookup("internal"), verdict("drop"));
  t.rule("forward", meta("oifname"), lookup("internal"), verdict("drop"));
  t.rule("forward", meta("oifname"), lookup("bridges"), connection("state", CT_ESTABLISHED_RELATED), verdict("accept"));
  t.rule("forward", meta("oifname"), lookup("bridges"), viaPort, verdict("accept"));
  t.rule("forward", meta("oifname"), lookup("bridges"), verdict("drop"));
  return count;
}

/** A one-field interval: its first key, and the first after it. */
function interval(cidr: Cidr): Element[] {
  const first = networkOf(cidr);
  const after = fromNumber(toNumber(lastOf(cidr)) + 1n, first.length);
  const out: Element[] = [{ key: first }];
  if (after.some((byte) => byte !== 0)) out.push({ key: after, intervalEnd: true });
  return out;
}

function bridgeElements(bridge: FirewallBridge): [set: string, elements: Element[]][] {
  const out: [string, Element[]][] = [["bridges", [{ key: fields(bridge.name) }]]];
  if (bridge.icc) out.push(["same", [{ key: fields(bridge.name, bridge.name) }]]);
  if (bridge.internal) out.push(["internal", [{ key: fields(bridge.name) }]]);
  for (const cidr of bridge.subnets) {
    const v = cidr.address.length === 4 ? 4 : 6;
    out.push([`own${v}`, [{ key: fields(bridge.name, networkOf(cidr)), keyEnd: fields(bridge.name, lastOf(cidr)) }]]);
    if (bridge.masquerade && !bridge.internal) out.push([`masquerade${v}`, interval(cidr)]);
  }
  return out;
}

function portElement(port: PublishedPort): { set: string; element: Element } {
  const protocol = Uint8Array.of(PROTOCOL[port.protocol]);
  const v = port.address.length === 4 ? 4 : 6;
  const everywhere = port.hostAddress.every((byte) => byte === 0);
  const data = fields(port.address, portField(port.port));
  return everywhere
    ? { set: `ports${v}`, element: { key: fields(protocol, portField(port.hostPort)), data } }
    : { set: `ports${v}_at`, element: { key: fields(port.hostAddress, protocol, portField(port.hostPort)), data } };
}

function bySet(ports: PublishedPort[]): Map<string, Element[]> {
  const sets = new Map<string, Element[]>();
  for (const port of ports) {
    const { set, element } = portElement(port);
    const list = sets.get(set);
    if (list) list.push(element);
    else sets.set(set, [element]);
  }
  return sets;
}

/** The table `name` in the namespace the thread is in. Nothing is made before `reset`. */
export function createFirewall(name: string): Firewall {
  const socket: NetlinkSocket = openNetlink(NETLINK_NETFILTER);
  const transaction = () => nftTransaction(socket, NFPROTO_INET, name);
  let rules = 0;
  let watching: { close(): void } | undefined;
  const portSets = ["ports4", "ports6", "ports4_at", "ports6_at"];
  return {
    reset(bridges, ports) {
      const t = transaction();
      t.replaceTable(true);
      rules = constantRules(t);
      for (const bridge of bridges) for (const [set, elements] of bridgeElements(bridge)) t.add(set, elements);
      for (const [set, elements] of bySet(ports)) t.add(set, elements);
      t.commit();
    },
    addBridge(bridge) {
      const t = transaction();
      for (const [set, elements] of bridgeElements(bridge)) t.add(set, elements);
      t.commit();
    },
    removeBridge(bridge) {
      const t = transaction();
      for (const [set, elements] of bridgeElements(bridge)) t.remove(set, elements);
      t.commit();
    },
    publish(ports) {
      const t = transaction();
      for (const [set, elements] of bySet(ports)) t.add(set, elements);
      t.commit();
    },
    unpublish(ports) {
      const sets = bySet(ports);
      try {
        const t = transaction();
        for (const [set, elements] of sets) t.remove(set, elements);
        t.commit();
      } catch {
        for (const [set, elements] of sets)
          for (const element of elements) {
            try {
              const t = transaction();
              t.remove(set, [element]);
              t.commit();
            } catch {
              // it was gone already
            }
          }
      }
    },
    published: () => portSets.reduce((n, set) => n + listElements(socket, NFPROTO_INET, name, set).length, 0),
    watch(callback) {
      let timer: NodeJS.Timeout | undefined;
      watching?.close();
      watching = watchRemovals(name, () => {
        clearTimeout(timer);
        timer = setTimeout(() => {
          if (watching && rules > 0 && countRules(socket, NFPROTO_INET, name) !== rules) callback();
        }, SETTLE);
        timer.unref();
      });
    },
    obstacles: () =>
      listDroppingChains(socket, HOOK.forward)
        .filter((chain) => chain.table !== name && [NFPROTO_INET, NFPROTO_IPV4].includes(chain.family))
        .map(({ family, table, chain }) => `${family === NFPROTO_IPV4 ? "ip" : "inet"} ${table} ${chain}`),
    inherit(bridge) {
      const key = fields(bridge);
      const stale = listTables(socket, NFPROTO_INET).filter(
        (table) =>
          table !== name &&
          /^jubako(-[0-9a-f]{8})?$/.test(table) &&
          listElements(socket, NFPROTO_INET, table, "bridges").some((element) => Buffer.compare(element, key) === 0),
      );
      for (const table of stale) {
        const t = nftTransaction(socket, NFPROTO_INET, table);
        t.replaceTable(false);
        t.commit();
      }
      return stale;
    },
    remove() {
      rules = 0;
      const t = transaction();
      t.replaceTable(false);
      t.commit();
    },
    close() {
      watching?.close();
      watching = undefined;
      socket.close();
    },
  };
}
