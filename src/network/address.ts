// Internet addresses as text, bytes and networks. Pure.
import { invalidArgument } from "../lib/errors.ts";

/** A network: the address of any host in it, and how many leading bits all its hosts share. */
export interface Cidr {
  address: Uint8Array;
  prefix: number;
}

function parseV4(text: string): Uint8Array | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (!match) return undefined;
  const out = new Uint8Array(4);
  for (let i = 0; i < 4; i++) {
    const n = Number(match[i + 1]);
    if (n > 255 || (match[i + 1]!.length > 1 && match[i + 1]!.startsWith("0"))) return undefined;
    out[i] = n;
  }
  return out;
}

function parseV6(text: string): Uint8Array | undefined {
  if (!/^[0-9a-fA-F:.]{2,45}$/.test(text)) return undefined;
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const words = (half: string): number[] | undefined => {
    if (half === "") return [];
    const out: number[] = [];
    const parts = half.split(":");
    for (const [i, part] of parts.entries()) {
      if (part.includes(".")) {
        const v4 = i === parts.length - 1 ? parseV4(part) : undefined;
        if (!v4) return undefined;
        out.push((v4[0]! << 8) | v4[1]!, (v4[2]! << 8) | v4[3]!);
      } else if (/^[0-9a-fA-F]{1,4}$/.test(part)) out.push(Number.parseInt(part, 16));
      else return undefined;
    }
    return out;
  };
  const head = words(halves[0]!);
  const tail = halves.length === 2 ? words(halves[1]!) : [];
  if (!head || !tail) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const out = new Uint8Array(16);
  const all = [...head, ...new Array<number>(missing).fill(0), ...tail];
  all.forEach((word, i) => {
    out[2 * i] = word >> 8;
    out[2 * i + 1] = word & 255;
  });
  return out;
}

/** Four or sixteen bytes, or undefined where the text is no address. */
export function parseAddress(text: string): Uint8Array | undefined {
  return text.includes(":") ? parseV6(text) : parseV4(text);
}

/** InvalidArgument where the text is no address. */
export function addressOf(text: string): Uint8Array {
  const address = parseAddress(text);
  if (!address) throw invalidArgument(`invalid IP address: ${text}`);
  return address;
}

/** The usual text; IPv6 as in RFC 5952. */
export function formatAddress(address: Uint8Array): string {
  if (address.length === 4) return address.join(".");
  const words = Array.from({ length: 8 }, (_, i) => (address[2 * i]! << 8) | address[2 * i + 1]!);
  let best = { at: -1, length: 1 };
  for (let i = 0; i < 8; i++) {
    let length = 0;
    while (i + length < 8 && words[i + length] === 0) length++;
    if (length > best.length) best = { at: i, length };
  }
  const hex = (list: number[]) => list.map((w) => w.toString(16)).join(":");
  return best.at < 0 ? hex(words) : `${hex(words.slice(0, best.at))}::${hex(words.slice(best.at + best.length))}`;
}

/** "10.0.0.0/8" in bytes, host bits kept; undefined where malformed. */
export function parseCidr(text: string): Cidr | undefined {
  const slash = text.indexOf("/");
  if (slash < 0 || !/^\d{1,3}$/.test(text.slice(slash + 1))) return undefined;
  const address = parseAddress(text.slice(0, slash));
  const prefix = Number(text.slice(slash + 1));
  if (!address || prefix > address.length * 8) return undefined;
  return { address, prefix };
}

export function formatCidr(cidr: Cidr): string {
  return `${formatAddress(cidr.address)}/${cidr.prefix}`;
}

/** The network's first address: host bits cleared. */
export function networkOf(cidr: Cidr): Uint8Array {
  return cidr.address.map((byte, i) => {
    const bits = Math.min(8, Math.max(0, cidr.prefix - 8 * i));
    return byte & (0xff00 >> bits) & 0xff;
  });
}

/** The network's last address: host bits set. */
export function lastOf(cidr: Cidr): Uint8Array {
  return cidr.address.map((byte, i) => {
    const bits = Math.min(8, Math.max(0, cidr.prefix - 8 * i));
    return byte | (0xff >> bits);
  });
}

export function contains(cidr: Cidr, address: Uint8Array): boolean {
  if (cidr.address.length !== address.length) return false;
  const net = networkOf(cidr);
  const other = networkOf({ address, prefix: cidr.prefix });
  return net.every((byte, i) => byte === other[i]);
}

export function overlap(a: Cidr, b: Cidr): boolean {
  return a.prefix <= b.prefix ? contains(a, b.address) : contains(b, a.address);
}

export function toNumber(address: Uint8Array): bigint {
  return address.reduce((n, byte) => (n << 8n) | BigInt(byte), 0n);
}

export function fromNumber(n: bigint, length: number): Uint8Array {
  const out = new Uint8Array(length);
  for (let i = length - 1; i >= 0; i--) {
    out[i] = Number(n & 255n);
    n >>= 8n;
  }
  return out;
}

export function sameAddress(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** "02:42:ac:11:00:02" in bytes; undefined where malformed. */
export function parseMac(text: string): Uint8Array | undefined {
  const parts = text.split(/[:-]/);
  if (parts.length !== 6 || !parts.every((part) => /^[0-9a-fA-F]{2}$/.test(part))) return undefined;
  return Uint8Array.from(parts, (part) => Number.parseInt(part, 16));
}

export function formatMac(mac: Uint8Array): string {
  return Array.from(mac, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** A locally administered address made from an IPv4 address, as Docker's bridges always had: the same container address keeps its MAC. */
export function macOf(ipv4: Uint8Array): Uint8Array {
  return Uint8Array.of(0x02, 0x42, ...ipv4);
}
