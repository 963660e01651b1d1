// Which subnets networks get, and which addresses their endpoints. Pure arithmetic; what is in use is told from outside.
import { resourceExhausted } from "../lib/errors.ts";
import { type Cidr, contains, formatAddress, fromNumber, lastOf, networkOf, overlap, toNumber } from "./address.ts";

/** A range that is cut into subnets of one size. */
export interface SubnetPool {
  base: Cidr;
  size: number;
}

const pool = (a: number, b: number, prefix: number, size: number): SubnetPool => ({
  base: { address: Uint8Array.of(a, b, 0, 0), prefix },
  size,
});

/** The ranges and sizes that Docker cuts local networks from: 172.17 … 172.31 as /16, then 192.168 as /20. */
export const DEFAULT_POOLS: SubnetPool[] = [
  pool(172, 17, 16, 16),
  pool(172, 18, 16, 16),
  pool(172, 19, 16, 16),
  pool(172, 20, 14, 16),
  pool(172, 24, 14, 16),
  pool(172, 28, 14, 16),
  pool(192, 168, 16, 20),
];

/** The first subnet that overlaps with nothing in `taken`. ResourceExhausted where all pools are used up. */
export function chooseSubnet(pools: SubnetPool[], taken: Cidr[]): Cidr {
  for (const { base, size } of pools) {
    const bits = BigInt(base.address.length * 8 - size);
    const first = toNumber(networkOf(base));
    for (let i = 0n; i < 1n << BigInt(size - base.prefix); i++) {
      const candidate = { address: fromNumber(first + (i << bits), base.address.length), prefix: size };
      if (!taken.some((other) => overlap(candidate, other))) return candidate;
    }
  }
  throw resourceExhausted("all predefined address pools have been fully subnetted");
}

/** Addresses of one subnet. */
export interface Allocator {
  readonly subnet: Cidr;
  /** The lowest free address; ResourceExhausted where none is left. */
  next(): Uint8Array;
  /** Takes this very address; false where it is taken. */
  take(address: Uint8Array): boolean;
  release(address: Uint8Array): void;
  readonly used: number;
}

/** Allocates from `range` (the subnet itself unless smaller); the network's and, for IPv4, the broadcast address are never given. */
export function createAllocator(subnet: Cidr, range?: Cidr): Allocator {
  const length = subnet.address.length;
  const taken = new Set<bigint>();
  const whole = range ?? subnet;
  const first = toNumber(networkOf(whole));
  const last = toNumber(lastOf(whole));
  const tiny = subnet.prefix >= length * 8 - 1;
  if (!tiny) {
    taken.add(toNumber(networkOf(subnet)));
    if (length === 4) taken.add(toNumber(lastOf(subnet)));
  }
  const reserved = taken.size;
  // everything below is taken
  let floor = first;
  return {
    subnet,
    next() {
      for (let n = floor; n <= last; n++) {
        if (taken.has(n)) continue;
        taken.add(n);
        floor = n + 1n;
        return fromNumber(n, length);
      }
      throw resourceExhausted(
        `no available ${length === 4 ? "IPv4" : "IPv6"} addresses on this network's address pools: ${formatAddress(networkOf(whole))}/${whole.prefix}`,
      );
    },
    take(address) {
      const n = toNumber(address);
      if (!contains(subnet, address) || taken.has(n)) return false;
      taken.add(n);
      return true;
    },
    release(address) {
      const n = toNumber(address);
      if (taken.delete(n) && n < floor && n >= first) floor = n;
    },
    get used() {
      return taken.size - reserved;
    },
  };
}
