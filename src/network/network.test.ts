import { expect, test } from "bun:test";
import {
  bindPort,
  bindText,
  chooseSubnet,
  contains,
  createAllocator,
  DEFAULT_POOLS,
  formatAddress,
  formatCidr,
  formatMac,
  hostsFile,
  lastOf,
  macOf,
  namedResolvConf,
  networkOf,
  overlap,
  parseAddress,
  parseCidr,
  parseMac,
  parseResolvConf,
  plainResolvConf,
  replaceHosts,
  resolvConfEdited,
} from "./index.ts";

const cidr = (text: string) => parseCidr(text)!;

test("addresses", () => {
  for (const text of [
    "0.0.0.0",
    "255.255.255.255",
    "172.17.0.2",
    "::",
    "::1",
    "fd00::1:0:0:1",
    "2001:db8::8a2e:370:7334",
    "fe80::42:aff:fed5:9",
  ])
    expect(formatAddress(parseAddress(text)!)).toBe(text);
  expect(formatAddress(parseAddress("::ffff:1.2.3.4")!)).toBe("::ffff:102:304");
  for (const text of ["", "1.2.3", "1.2.3.256", "01.2.3.4", "1.2.3.4.5", ":::", "1::2::3", "12345::", "1:2:3:4:5:6:7:8:9", "g::"])
    expect(parseAddress(text)).toBeUndefined();
  expect(formatAddress(networkOf(cidr("10.213.45.6/20")))).toBe("10.213.32.0");
  expect(formatAddress(lastOf(cidr("10.213.45.6/20")))).toBe("10.213.47.255");
  expect(contains(cidr("10.0.0.0/8"), parseAddress("10.255.0.1")!)).toBe(true);
  expect(overlap(cidr("10.0.0.0/8"), cidr("10.9.0.0/16"))).toBe(true);
  expect(overlap(cidr("10.0.0.0/16"), cidr("10.1.0.0/16"))).toBe(false);
  expect(parseCidr("10.0.0.0/33")).toBeUndefined();
  expect(formatMac(macOf(parseAddress("172.17.0.2")!))).toBe("02:42:ac:11:00:02");
  expect(parseMac("02:42:ac:11:00")).toBeUndefined();
});

test("subnets are chosen around what the host already uses", () => {
  const choose = (...taken: string[]) => formatCidr(chooseSubnet(DEFAULT_POOLS, taken.map(cidr)));
  expect(choose()).toBe("172.17.0.0/16");
  expect(choose("172.17.42.1/32", "172.16.0.0/12")).toBe("192.168.0.0/20");
  expect(choose("172.17.0.1/16", "172.18.0.0/15")).toBe("172.20.0.0/16");
  expect(() => choose("0.0.0.0/0")).toThrow("all predefined address pools have been fully subnetted");
});

test("the lowest free address, within the range, never network, broadcast or gateway", () => {
  const a = createAllocator(cidr("10.0.0.0/29"));
  const next = () => formatAddress(a.next());
  expect(a.take(parseAddress("10.0.0.1")!)).toBe(true);
  expect([next(), next(), next()]).toEqual(["10.0.0.2", "10.0.0.3", "10.0.0.4"]);
  a.release(parseAddress("10.0.0.3")!);
  expect(next()).toBe("10.0.0.3");
  expect(a.take(parseAddress("10.0.0.3")!)).toBe(false);
  expect(a.take(parseAddress("10.0.1.3")!)).toBe(false);
  expect([next(), next()]).toEqual(["10.0.0.5", "10.0.0.6"]);
  expect(() => a.next()).toThrow("no available IPv4 addresses");
  const ranged = createAllocator(cidr("10.0.0.0/24"), cidr("10.0.0.128/30"));
  expect(formatAddress(ranged.next())).toBe("10.0.0.128");
  expect(formatAddress(createAllocator(cidr("fd00::/64")).next())).toBe("fd00::1");
});

test("resolv.conf and hosts", () => {
  const host = parseResolvConf("# x\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver fd00::1\nsearch lan corp\noptions edns0\n");
  expect(plainResolvConf(host, {}, false)).toEndWith("nameserver 10.0.0.1\nsearch lan corp\noptions edns0\n");
  expect(plainResolvConf(parseResolvConf("nameserver 127.0.0.1\n"), {}, false)).toContain("nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
  expect(plainResolvConf(host, { nameservers: ["127.0.0.1"], search: ["."], options: ["ndots:3"] }, false)).toEndWith(
    "edited.\nnameserver 127.0.0.1\noptions ndots:3\n",
  );
  expect(resolvConfEdited(plainResolvConf(host, {}, false))).toBe(false);
  expect(resolvConfEdited(`${plainResolvConf(host, {}, false)}nameserver 9.9.9.9\n`)).toBe(true);
  expect(replaceHosts("127.0.0.1\tlocalhost\n10.0.0.2\tme\n1.2.3.4 mine\n", "me", [["10.0.0.3", "me"]])).toBe(
    "127.0.0.1\tlocalhost\n1.2.3.4 mine\n10.0.0.3\tme\n",
  );
  const named = namedResolvConf(host, {});
  expect(named.text).toEndWith("nameserver 127.0.0.11\nsearch lan corp\noptions edns0 ndots:0\n");
  expect(named.upstreams).toEqual(["127.0.0.53", "10.0.0.1", "fd00::1"]);
  expect(hostsFile([["1.2.3.4", "a"]], [["10.0.0.2", "me"]])).toStartWith("127.0.0.1\tlocalhost\n");
});

test("ports: the next one of a range where one is taken, and the words of an error", () => {
  const at = [Uint8Array.of(127, 0, 0, 1)];
  const first = bindPort("tcp", at, 0);
  if ("errno" in first) throw new Error("no free port");
  const again = bindPort("tcp", at, first.port);
  if (!("errno" in again)) throw new Error("bound twice");
  expect(bindText("tcp", again)).toBe(`listen tcp4 127.0.0.1:${first.port}: bind: address already in use`);
  const second = bindPort("tcp", at, first.port, first.port + 20);
  if ("errno" in second) throw new Error("no free port in range");
  expect(second.port).toBeGreaterThan(first.port);
  expect("errno" in bindPort("udp", [Uint8Array.of(192, 0, 2, 77)], 5000)).toBe(true);
  first.close();
  second.close();
});
