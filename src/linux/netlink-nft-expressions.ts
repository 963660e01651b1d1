// What rules of nf_tables are made of: data types, and expressions over registers (include/uapi/linux/netfilter/nf_tables.h).
import type { Messages } from "./netlink.ts";

/** Names of nft's data types with their number (for listings only) and length in bytes. */
export const TYPES = {
  ipv4_addr: [7, 4],
  ipv6_addr: [8, 16],
  inet_proto: [12, 1],
  inet_service: [13, 2],
  ifname: [41, 16],
} as const;
export type SetType = keyof typeof TYPES;

export const align = (n: number) => (n + 3) & ~3;
export const lengthOf = (types: readonly SetType[]) =>
  types.length === 1 ? TYPES[types[0]!][1] : types.reduce((n, type) => n + align(TYPES[type][1]), 0);
export const numberOf = (types: readonly SetType[]) => types.reduce((n, type) => (n << 6) | TYPES[type][0], 0);

const encoder = new TextEncoder();

/** One key or datum: fields concatenated, each padded to four bytes. A string is an interface name. */
export function fields(...parts: (Uint8Array | string)[]): Uint8Array {
  const bytes = parts.map((part) => {
    if (typeof part !== "string") return part;
    const name = new Uint8Array(16);
    name.set(encoder.encode(part).subarray(0, 15));
    return name;
  });
  if (bytes.length === 1) return bytes[0]!;
  const out = new Uint8Array(bytes.reduce((n, b) => n + align(b.length), 0));
  let at = 0;
  for (const b of bytes) {
    out.set(b, at);
    at += align(b.length);
  }
  return out;
}

export const portField = (port: number) => new Uint8Array([port >> 8, port & 255]);

export type Expression = (m: Messages) => void;

const expression =
  (name: string, fill: (m: Messages) => void): Expression =>
  (m) =>
    m.nest(1, () => {
      m.attrString(1, name);
      m.nest(2, () => fill(m));
    });

/** Registers of four bytes: 0 … 15. */
const register = (n: number) => 8 + n;

const META = { iifname: 6, oifname: 7, nfproto: 15, l4proto: 16 } as const;

/** Loads a property of the packet into register `r`. */
export const meta = (key: keyof typeof META, r = 0): Expression =>
  expression("meta", (m) => {
    m.attrU32be(2, META[key]);
    m.attrU32be(1, register(r));
  });

/** Loads packet bytes into register `r`. */
export const payload = (base: "network" | "transport", offset: number, length: number, r = 0): Expression =>
  expression("payload", (m) => {
    m.attrU32be(1, register(r));
    m.attrU32be(2, base === "network" ? 1 : 2);
    m.attrU32be(3, offset);
    m.attrU32be(4, length);
  });

/** Writes register `r` into the packet and mends the transport checksum at `checksum`. */
export const setPayload = (base: "network" | "transport", offset: number, length: number, checksum: number, r = 0): Expression =>
  expression("payload", (m) => {
    m.attrU32be(5, register(r));
    m.attrU32be(2, base === "network" ? 1 : 2);
    m.attrU32be(3, offset);
    m.attrU32be(4, length);
    m.attrU32be(6, 1);
    m.attrU32be(7, checksum);
  });

/** Ends the rule unless register `r` compares so with `value`. */
export const compare = (op: "eq" | "neq", value: Uint8Array, r = 0): Expression =>
  expression("cmp", (m) => {
    m.attrU32be(1, register(r));
    m.attrU32be(2, op === "eq" ? 0 : 1);
    m.nest(3, () => m.attr(1, value));
  });

export const mask = (bits: Uint8Array, r = 0): Expression =>
  expression("bitwise", (m) => {
    m.attrU32be(1, register(r));
    m.attrU32be(2, register(r));
    m.attrU32be(3, bits.length);
    m.nest(4, () => m.attr(1, bits));
    m.nest(5, () => m.attr(1, new Uint8Array(bits.length)));
  });

/** Ends the rule unless the registers from `r` on are in the set (`not`: are absent). With `data`, the map's datum goes to that register. */
export const lookup = (set: string, options: { r?: number; not?: boolean; data?: number } = {}): Expression =>
  expression("lookup", (m) => {
    m.attrString(1, set);
    m.attrU32be(2, register(options.r ?? 0));
    if (options.data !== undefined) m.attrU32be(3, register(options.data));
    if (options.not) m.attrU32be(5, 1);
  });

const CT = { state: 0, status: 2 } as const;

/** Goes on where the connection's state or status has one of the bits. */
export const connection = (key: keyof typeof CT, bits: number): Expression[] => [
  expression("ct", (m) => {
    m.attrU32be(1, register(0));
    m.attrU32be(2, CT[key]);
  }),
  mask(hostOrder(bits)),
  compare("neq", hostOrder(0)),
];
export const CT_ESTABLISHED_RELATED = 2 | 4;
export const CT_STATUS_DNAT = 0x20;

function hostOrder(n: number): Uint8Array {
  const out = new Uint8Array(4);
  new DataView(out.buffer).setUint32(0, n, true);
  return out;
}

/** Goes on where the destination is one of the host's own addresses. */
export const destinationIsLocal: Expression[] = [
  expression("fib", (m) => {
    m.attrU32be(1, register(0));
    m.attrU32be(2, 3);
    m.attrU32be(3, 2);
  }),
  compare("eq", hostOrder(2)),
];

/** The address and port in registers `address` and `port` become the destination. */
export const dnat = (family: number, address: number, port: number): Expression =>
  expression("nat", (m) => {
    m.attrU32be(1, 1);
    m.attrU32be(2, family);
    m.attrU32be(3, register(address));
    m.attrU32be(5, register(port));
    m.attrU32be(7, 2);
  });

export const masquerade: Expression = expression("masq", () => {});

/** A constant into register `r`. */
export const immediate = (value: Uint8Array, r = 0): Expression =>
  expression("immediate", (m) => {
    m.attrU32be(1, register(r));
    m.nest(2, () => m.attr(1, value));
  });

const VERDICT = { drop: 0, accept: 1, return: -5, jump: -3 } as const;

export const verdict = (code: keyof typeof VERDICT, chain?: string): Expression =>
  expression("immediate", (m) => {
    m.attrU32be(1, 0);
    m.nest(2, () =>
      m.nest(2, () => {
        m.attrU32be(1, VERDICT[code] >>> 0);
        if (chain) m.attrString(2, chain);
      }),
    );
  });
