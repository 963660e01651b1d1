import { expect, test } from "bun:test";
import { readdirSync, readlinkSync } from "node:fs";
import {
  addAddress,
  addBridge,
  addRoute,
  addVeth,
  attributeList,
  attributeString,
  attributes,
  attributeU32,
  close,
  compare,
  countRules,
  deleteLink,
  fields,
  getLink,
  HOOK,
  inNetns,
  listAddresses,
  listElements,
  listLinks,
  listRoutes,
  listTables,
  makeNetns,
  meta,
  NETLINK_NETFILTER,
  NETLINK_ROUTE,
  NFPROTO_INET,
  netlinkMessages,
  nftTransaction,
  openNetlink,
  portField,
  requestApart,
  setLinkAlias,
  setLinkUp,
  verdict,
  watchRemovals,
} from "./index.ts";

const root = test.skipIf(process.getuid?.() !== 0);

test("messages and attributes are laid out as the kernel wants them", () => {
  const m = netlinkMessages(8);
  m.message(16, 4, "first");
  m.u32(7);
  m.attrString(3, "eth0");
  m.nest(18, () => {
    m.attrU32(1, 5);
    m.attrU16be(2, 0x1234);
  });
  m.message(17, 0, "second");
  const { bytes, whats } = m.finish();
  expect(whats).toEqual(["first", "second"]);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const length = view.getUint32(0, true);
  expect([length, view.getUint16(4, true), view.getUint16(6, true), view.getUint32(8, true)]).toEqual([52, 16, 5, 1]);
  expect([view.getUint32(length, true), view.getUint16(length + 4, true)]).toEqual([16, 17]);
  const at = attributes(bytes.subarray(0, length), 20);
  expect(attributeString(at.get(3))).toBe("eth0");
  const inner = attributeList(at.get(18)!);
  expect(attributeU32(inner[0]![1])).toBe(5);
  expect([...inner[1]![1]]).toEqual([0x12, 0x34]);
  expect(attributeList(Uint8Array.of(2, 0, 1, 0))).toEqual([]);
});

root("links, addresses and routes in a namespace of their own; sockets stay where they were opened", () => {
  const fds = () => readdirSync("/proc/self/fd").length;
  const here = readlinkSync("/proc/thread-self/ns/net");
  inNetns(makeOnce(), () => {});
  const before = fds();
  const outer = makeNetns();
  const inner = makeNetns();
  const route = inNetns(outer, () => openNetlink(NETLINK_ROUTE));
  const inside = inNetns(inner, () => openNetlink(NETLINK_ROUTE));
  expect(readlinkSync("/proc/thread-self/ns/net")).toBe(here);
  const m = netlinkMessages();
  addBridge(m, { name: "br0", mtu: 1400, address: Uint8Array.of(2, 0x42, 1, 2, 3, 4) });
  setLinkAlias(m, "br0", "mine");
  route.request(m);
  const bridge = getLink(route, { name: "br0" });
  expect(bridge).toMatchObject({ kind: "bridge", up: true, mtu: 1400, alias: "mine", address: Uint8Array.of(2, 0x42, 1, 2, 3, 4) });
  const n = netlinkMessages();
  addVeth(n, {
    name: "v0",
    master: bridge.index,
    mtu: 1400,
    peer: { name: "eth0", netns: inner, address: Uint8Array.of(2, 0, 0, 0, 0, 9) },
  });
  addAddress(n, { index: bridge.index, local: Uint8Array.of(10, 0, 0, 1), prefix: 24 });
  route.request(n);
  const o = netlinkMessages();
  setLinkUp(o, { index: 2 });
  addAddress(o, { index: 2, local: Uint8Array.of(10, 0, 0, 2), prefix: 24 });
  addRoute(o, { family: 2, gateway: Uint8Array.of(10, 0, 0, 1), index: 2 });
  inside.request(o);
  expect(getLink(inside, { index: 2 })).toMatchObject({ name: "eth0", up: true, kind: "veth" });
  expect(listLinks(route).find((l) => l.name === "v0")).toMatchObject({ master: bridge.index, peer: 2 });
  expect(listAddresses(inside).map((a) => [...a.local, a.prefix])).toContainEqual([10, 0, 0, 2, 24]);
  expect(listRoutes(inside).find((r) => r.prefix === 0 && r.table === 254)?.gateway).toEqual(Uint8Array.of(10, 0, 0, 1));

  // the error names the message and gives the kernel's reason; what stood beside it in the batch happened
  const bad = netlinkMessages();
  addRoute(bad, {
    family: 2,
    destination: { address: Uint8Array.of(10, 9, 0, 0), prefix: 16 },
    gateway: Uint8Array.of(9, 9, 9, 9),
    index: 2,
  });
  addAddress(bad, { index: 2, local: Uint8Array.of(10, 0, 0, 3), prefix: 24 });
  expect(() => inside.request(bad)).toThrow(/^add route \(.*invalid gateway\): ENETUNREACH/);
  expect(listAddresses(inside).filter((a) => a.local.length === 4).length).toBe(2);
  expect(() => getLink(route, { name: "nosuch" })).toThrow("look up link nosuch: ENODEV");
  route.close();
  inside.close();
  close(outer);
  close(inner);
  expect(fds()).toBe(before);
});

/** The first visit opens the way home, which stays open. */
function makeOnce(): number {
  const fd = makeNetns();
  setTimeout(() => close(fd), 0);
  return fd;
}

root("an nftables transaction is whole or not at all; removals are noticed", async () => {
  const netns = makeNetns();
  const { nft, removed, watching } = inNetns(netns, () => {
    const state = { count: 0 };
    const watching = watchRemovals("t", () => {
      state.count++;
    });
    return { nft: openNetlink(NETLINK_NETFILTER), removed: state, watching };
  });
  const t = nftTransaction(nft, NFPROTO_INET, "t");
  t.replaceTable(true);
  t.set({ name: "names", key: ["ifname"] });
  t.set({ name: "ports", key: ["inet_proto", "inet_service"], data: ["ipv4_addr", "inet_service"] });
  t.baseChain("c", "filter", HOOK.forward, 0);
  t.rule("c", meta("iifname"), compare("eq", fields("eth0")), verdict("drop"));
  t.commit();
  expect(listTables(nft, NFPROTO_INET)).toEqual(["t"]);
  expect(countRules(nft, NFPROTO_INET, "t")).toBe(1);
  const port = (n: number) => ({ key: fields(Uint8Array.of(6), portField(n)), data: fields(Uint8Array.of(10, 0, 0, 2), portField(80)) });
  const many = nftTransaction(nft, NFPROTO_INET, "t");
  many.add(
    "ports",
    Array.from({ length: 1200 }, (_, i) => port(1000 + i)),
  );
  many.commit();
  const mixed = nftTransaction(nft, NFPROTO_INET, "t");
  mixed.add("ports", [port(9000)]);
  mixed.remove("names", [{ key: fields("absent") }]);
  expect(() => mixed.commit()).toThrow("nftables: remove element from names: ENOENT");
  expect(listElements(nft, NFPROTO_INET, "t", "ports").length).toBe(1200);
  await Bun.sleep(20);
  const before = removed.count;
  const gone = nftTransaction(nft, NFPROTO_INET, "t");
  gone.replaceTable(false);
  gone.commit();
  for (let i = 0; i < 50 && removed.count === before; i++) await Bun.sleep(10);
  expect(removed.count).toBeGreaterThan(before);
  watching.close();
  nft.close();
  close(netns);
});

root("requestApart does on a worker thread what would block", async () => {
  const netns = makeNetns();
  const route = inNetns(netns, () => openNetlink(NETLINK_ROUTE));
  const m = netlinkMessages();
  addBridge(m, { name: "br0", mtu: 1500, address: Uint8Array.of(2, 0x42, 1, 2, 3, 4) });
  route.request(m);
  const n = netlinkMessages();
  deleteLink(n, { name: "br0" });
  await inNetns(netns, () => requestApart(NETLINK_ROUTE, n));
  expect(listLinks(route).some((l) => l.name === "br0")).toBe(false);
  route.close();
  close(netns);
});
