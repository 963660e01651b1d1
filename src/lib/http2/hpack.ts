// HPACK (RFC 7541): header fields as bytes. The decoder keeps the peer's dynamic table; our encoder uses none, so that it has no state: fields of ours are few and short.
import { decodeHuffman } from "./huffman.ts";

/** Names in lower case; values are byte strings (latin1). A name may come several times. */
export type Fields = readonly (readonly [name: string, value: string])[];

/** Appendix A, from index 1. */
const STATIC: Fields = `:authority
:method=GET
:method=POST
:path=/
:path=/index.html
:scheme=http
:scheme=https
:status=200
:status=204
:status=206
:status=304
:status=400
:status=404
:status=500
accept-charset
accept-encoding=gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate`
  .split("\n")
  .map((line) => {
    const equals = line.indexOf("=");
    return equals < 0 ? [line, ""] : [line.slice(0, equals), line.slice(equals + 1)];
  });

const TABLE_SIZE = 4096;
/** What an entry costs beyond its bytes (4.1). */
const OVERHEAD = 32;

export interface Decoder {
  /** Throws where the block is malformed, or its fields are longer than `limit` bytes together. */
  decode(block: Uint8Array, limit: number): [string, string][];
}

const malformed = () => new Error("malformed header block");

export function createDecoder(): Decoder {
  /** The newest entry is the last one. */
  let entries: [string, string][] = [];
  let size = 0;
  let allowed = TABLE_SIZE;
  const cost = ([name, value]: readonly [string, string]) => name.length + value.length + OVERHEAD;
  function shrink(to: number): void {
    let gone = 0;
    while (size > to) size -= cost(entries[gone++]!);
    if (gone > 0) entries = entries.slice(gone);
  }
  function add(entry: [string, string]): void {
    const wanted = cost(entry);
    shrink(Math.max(0, allowed - wanted));
    if (wanted > allowed) return;
    entries.push(entry);
    size += wanted;
  }
  function at(index: number): readonly [string, string] {
    const found = index <= STATIC.length ? STATIC[index - 1] : entries[entries.length - (index - STATIC.length)];
    if (!found) throw malformed();
    return found;
  }

  return {
    decode(block, limit) {
      const fields: [string, string][] = [];
      let pos = 0;
      let total = 0;
      const integer = (bits: number): number => {
        const most = (1 << bits) - 1;
        let value = block[pos++]! & most;
        if (value < most) return value;
        for (let shift = 0; ; shift += 7) {
          const byte = block[pos++];
          if (byte === undefined || shift > 21) throw malformed();
          value += (byte & 0x7f) * 2 ** shift;
          if (byte < 0x80) return value;
        }
      };
      const string = (): string => {
        if (pos >= block.length) throw malformed();
        const coded = block[pos]! >= 0x80;
        const length = integer(7);
        const end = pos + length;
        if (end > block.length) throw malformed();
        const bytes = block.subarray(pos, end);
        pos = end;
        const text = coded ? decodeHuffman(bytes) : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
        if (text === undefined) throw malformed();
        return text;
      };
      while (pos < block.length) {
        const byte = block[pos]!;
        let field: readonly [string, string];
        if (byte >= 0x80) field = at(integer(7));
        else if (byte >= 0x40 || byte < 0x20) {
          const index = integer(byte >= 0x40 ? 6 : 4);
          const name = index === 0 ? string() : at(index)[0];
          const literal: [string, string] = [name, string()];
          if (byte >= 0x40) add(literal);
          field = literal;
        } else {
          const wanted = integer(5);
          if (wanted > TABLE_SIZE) throw malformed();
          allowed = wanted;
          shrink(allowed);
          continue;
        }
        total += cost(field);
        if (total > limit) throw new Error("the header fields are too long");
        fields.push([field[0], field[1]]);
      }
      return fields;
    },
  };
}

const whole = new Map(STATIC.map(([name, value], i) => [`${name}=${value}`, i + 1]));
const names = new Map<string, number>();
for (const [i, [name]] of STATIC.entries()) if (!names.has(name)) names.set(name, i + 1);

/** `first`: the first block of a connection says that our table has no room, whatever the peer allows. */
export function encodeFields(fields: Fields, first: boolean): Buffer {
  let room = 1;
  for (const [name, value] of fields) room += name.length + value.length + 16;
  const out = Buffer.allocUnsafe(room);
  let pos = 0;
  const integer = (prefix: number, bits: number, value: number) => {
    const most = (1 << bits) - 1;
    if (value < most) {
      out[pos++] = prefix | value;
      return;
    }
    out[pos++] = prefix | most;
    let rest = value - most;
    for (; rest >= 0x80; rest = Math.floor(rest / 128)) out[pos++] = (rest % 128) | 0x80;
    out[pos++] = rest;
  };
  const string = (text: string) => {
    integer(0, 7, text.length);
    pos += out.write(text, pos, "latin1");
  };
  if (first) out[pos++] = 0x20;
  for (const [name, value] of fields) {
    const index = whole.get(`${name}=${value}`);
    if (index !== undefined) {
      integer(0x80, 7, index);
      continue;
    }
    const known = names.get(name) ?? 0;
    integer(0, 4, known);
    if (known === 0) string(name);
    string(value);
  }
  return out.subarray(0, pos);
}
