// nf_tables over nfnetlink (include/uapi/linux/netfilter/nf_tables.h): tables, chains, rules, sets and their elements, in batches that the
// kernel takes whole or not at all. Rules are lists of expressions, which is what `nft --debug=netlink` prints.
import { binding } from "./binding.ts";
import { check, errno } from "./errno.ts";
import {
  attributeList,
  attributeString,
  attributes,
  NETLINK_NETFILTER,
  type NetlinkSocket,
  NLM_F_ACK,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_DUMP,
  netlinkMessages,
  openNetlink,
} from "./netlink.ts";
import { align, type Expression, lengthOf, numberOf, type SetType, TYPES } from "./netlink-nft-expressions.ts";
import { EPOLLIN, watch } from "./poll.ts";
import { SYS } from "./sys.ts";

const BATCH_BEGIN = 0x10;
const BATCH_END = 0x11;
const SUBSYS = 10;
const NEWTABLE = 0;
const GETTABLE = 1;
const DELTABLE = 2;
const NEWCHAIN = 3;
const GETCHAIN = 4;
const DELCHAIN = 5;
const NEWRULE = 6;
const GETRULE = 7;
const DELRULE = 8;
const NEWSET = 9;
const NEWSETELEM = 12;
const GETSETELEM = 13;
const DELSETELEM = 14;

const AF_NETLINK = 16;
const NFNLGRP_NFTABLES = 7;
const MSG_DONTWAIT = 0x40;

export const NFPROTO_INET = 1;
export const NFPROTO_IPV4 = 2;
export const NFPROTO_IPV6 = 10;

export const HOOK = { prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 } as const;

const SET_INTERVAL = 4;
const SET_MAP = 8;
const SET_CONCAT = 0x80;

export interface NftSet {
  name: string;
  key: readonly SetType[];
  /** Makes it a map. */
  data?: readonly SetType[];
  interval?: boolean;
}

export interface Element {
  key: Uint8Array;
  /** Inclusive end for sets of intervals with several fields. */
  keyEnd?: Uint8Array;
  data?: Uint8Array;
  /** Marks the first key after an interval, in sets of intervals with one field. */
  intervalEnd?: boolean;
}

export interface Transaction {
  /** Deletes the table with all in it where it exists, then makes it anew if `create`. */
  replaceTable(create: boolean): void;
  baseChain(name: string, type: "filter" | "nat", hook: number, priority: number): void;
  chain(name: string): void;
  rule(chain: string, ...expressions: (Expression | Expression[])[]): void;
  set(set: NftSet): void;
  /** Adds elements; EEXIST where a key of a map is there with another datum. */
  add(set: string, elements: Element[]): void;
  /** Removes elements; ENOENT where one is absent. */
  remove(set: string, elements: Element[]): void;
  /** Sends everything; throws SystemError, and then nothing has changed. */
  commit(): void;
}

/** Changes to one table, sent as one batch. */
export function nftTransaction(socket: NetlinkSocket, family: number, table: string): Transaction {
  const m = netlinkMessages();
  let setId = 0;
  const begin = (type: number, flags: number, what: string, resource = 0, protocol = family) => {
    m.message(type, flags, what);
    m.u8(protocol);
    m.u8(0);
    m.u16be(resource);
  };
  const nft = (type: number, flags: number, what: string) => begin((SUBSYS << 8) | type, flags | NLM_F_ACK, `nftables: ${what}`);
  begin(BATCH_BEGIN, 0, "nftables: begin", SUBSYS, 0);

  const elements = (type: number, flags: number, what: string, set: string, list: Element[]) => {
    // an attribute's length has sixteen bits; an element needs less than a hundred bytes
    for (let from = 0; from < list.length; from += 500) {
      nft(type, flags, what);
      m.attrString(1, table);
      m.attrString(2, set);
      m.nest(3, () => {
        for (const element of list.slice(from, from + 500))
          m.nest(1, () => {
            m.nest(1, () => m.attr(1, element.key));
            if (element.keyEnd) m.nest(10, () => m.attr(1, element.keyEnd!));
            if (element.data && type === NEWSETELEM) m.nest(2, () => m.attr(1, element.data!));
            if (element.intervalEnd) m.attrU32be(3, 1);
          });
      });
    }
  };
  return {
    replaceTable(create) {
      // adding first makes the deletion succeed where there was none
      for (const type of create ? [NEWTABLE, DELTABLE, NEWTABLE] : [NEWTABLE, DELTABLE]) {
        nft(type, type === NEWTABLE ? NLM_F_CREATE : 0, `${type === NEWTABLE ? "add" : "delete"} table ${table}`);
        m.attrString(1, table);
        if (type === NEWTABLE) m.attrU32be(2, 0);
      }
    },
    baseChain(name, type, hook, priority) {
      nft(NEWCHAIN, NLM_F_CREATE, `add chain ${name}`);
      m.attrString(1, table);
      m.attrString(3, name);
      m.nest(4, () => {
        m.attrU32be(1, hook);
        m.attrU32be(2, priority >>> 0);
      });
      m.attrU32be(5, 1);
      m.attrString(7, type);
    },
    chain(name) {
      nft(NEWCHAIN, NLM_F_CREATE, `add chain ${name}`);
      m.attrString(1, table);
      m.attrString(3, name);
    },
    rule(chain, ...expressions) {
      nft(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, `add rule to ${chain}`);
      m.attrString(1, table);
      m.attrString(2, chain);
      m.nest(4, () => {
        for (const e of expressions.flat()) e(m);
      });
    },
    set(set) {
      const concatenated = set.key.length > 1;
      nft(NEWSET, NLM_F_CREATE, `add set ${set.name}`);
      m.attrString(1, table);
      m.attrString(2, set.name);
      m.attrU32be(
        3,

        (set.interval ? SET_INTERVAL : 0) | (set.data ? SET_MAP : 0) | (concatenated && set.interval ? SET_CONCAT : 0),
      );
      m.attrU32be(4, numberOf(set.key));
      m.attrU32be(5, lengthOf(set.key));
      if (set.data) {
        m.attrU32be(6, numberOf(set.data));
        m.attrU32be(7, lengthOf(set.data));
      }
      m.attrU32be(10, ++setId);
      // for listings: names of interfaces are in host order (NFTNL_UDATA_SET_KEYBYTEORDER)
      if (set.key.length === 1 && set.key[0] === "ifname") m.attr(13, Uint8Array.of(0, 4, 1, 0, 0, 0));
      if (concatenated && set.interval)
        m.nest(9, () =>
          m.nest(2, () => {
            for (const type of set.key) m.nest(1, () => m.attrU32be(1, TYPES[type][1]));
          }),
        );
    },
    add(set, list) {
      elements(NEWSETELEM, NLM_F_CREATE, `add element to ${set}`, set, list);
    },
    remove(set, list) {
      elements(DELSETELEM, 0, `remove element from ${set}`, set, list);
    },
    commit() {
      begin(BATCH_END, 0, "nftables: end", SUBSYS, 0);
      socket.request(m);
    },
  };
}

/** Names of the tables of a family. */
export function listTables(socket: NetlinkSocket, family: number): string[] {
  const m = netlinkMessages(64);
  m.message((SUBSYS << 8) | GETTABLE, NLM_F_DUMP, "nftables: list tables");
  m.u8(family);
  m.u8(0);
  m.u16be(0);
  return socket.request(m).flatMap((reply) => attributeString(attributes(reply.body, 4).get(1)) ?? []);
}

/** How many rules a table has; 0 where there is no such table. */
export function countRules(socket: NetlinkSocket, family: number, table: string): number {
  const m = netlinkMessages(128);
  m.message((SUBSYS << 8) | GETRULE, NLM_F_DUMP, `nftables: list rules of ${table}`);
  m.u8(family);
  m.u8(0);
  m.u16be(0);
  m.attrString(1, table);
  try {
    return socket.request(m).filter((reply) => attributeString(attributes(reply.body, 4).get(1)) === table).length;
  } catch {
    return 0;
  }
}

/** Base chains of other programs that drop whatever they don't know, by hook. */
export function listDroppingChains(socket: NetlinkSocket, hook: number): { family: number; table: string; chain: string }[] {
  const m = netlinkMessages(128);
  m.message((SUBSYS << 8) | GETCHAIN, NLM_F_DUMP, "nftables: list chains");
  m.u8(0);
  m.u8(0);
  m.u16be(0);
  return socket.request(m).flatMap(({ body }) => {
    const at = attributes(body, 4);
    const hookOf = at.get(4) && attributes(at.get(4)!).get(1);
    const policy = at.get(5);
    if (hookOf?.[3] !== hook || policy?.[3] !== 0) return [];
    return [{ family: body[0]!, table: attributeString(at.get(1)) ?? "", chain: attributeString(at.get(3)) ?? "" }];
  });
}

/**
 * Calls back when tables, chains or rules of a table are removed, by whomever, and when so much changes that the kernel can't tell all of it.
 * The socket belongs to the namespace the thread is in now.
 */
export function watchRemovals(table: string, callback: () => void): { close(): void } {
  const socket = openNetlink(NETLINK_NETFILTER);
  const buffer = new Uint8Array(65536);
  const view = new DataView(buffer.buffer);
  // a socket without an address of its own is left out of what goes to a group
  const address = new Uint32Array([AF_NETLINK, 0, 1 << (NFNLGRP_NFTABLES - 1)]);
  check(binding.syscall(SYS.bind, socket.fd, new Uint8Array(address.buffer), 12), "bind netlink socket");
  const watching = watch(
    socket.fd,
    EPOLLIN,
    () => {
      let removed = false;
      for (let i = 0; i < 256; i++) {
        const n = binding.syscall(SYS.recvfrom, socket.fd, buffer, buffer.length, MSG_DONTWAIT, null, null);
        if (n === -errno.ENOBUFS) removed = true;
        if (n <= 0) break;
        for (let at = 0; at + 20 <= n && !removed; ) {
          const length = view.getUint32(at, true);
          if (length < 20 || at + length > n) break;
          const type = view.getUint16(at + 4, true);
          if (type >> 8 === SUBSYS && [DELTABLE, DELCHAIN, DELRULE].includes(type & 255))
            removed = attributeString(attributes(buffer.subarray(at + 20, at + length)).get(1)) === table;
          at += align(length);
        }
      }
      if (removed) callback();
    },
    { ref: false },
  );
  return {
    close() {
      watching.close();
      socket.close();
    },
  };
}

/** Keys of a set's elements. ENOENT where the set or table is absent. */
export function listElements(socket: NetlinkSocket, family: number, table: string, set: string): Uint8Array[] {
  const m = netlinkMessages(128);
  m.message((SUBSYS << 8) | GETSETELEM, NLM_F_DUMP, `nftables: list set ${set}`);
  m.u8(family);
  m.u8(0);
  m.u16be(0);
  m.attrString(1, table);
  m.attrString(2, set);
  return socket.request(m).flatMap((reply) => {
    const list = attributes(reply.body, 4).get(3);
    if (!list) return [];
    return attributeList(list).flatMap(([, element]) => {
      const key = attributes(element).get(1);
      const value = key && attributes(key).get(1);
      return value ? [value.slice()] : [];
    });
  });
}
