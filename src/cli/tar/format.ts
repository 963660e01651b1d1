// Tar as cp needs it (POSIX ustar with pax records, and GNU's long names when reading): entries in a stream, both ways.
import { Buffer } from "node:buffer";

export interface Entry {
  name: string;
  /** "0" file, "1" hard link, "2" symbolic link, "3" character device, "4" block device, "5" directory, "6" FIFO. */
  type: string;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  /** Seconds since 1970. */
  mtime: number;
  link: string;
  major: number;
  minor: number;
  pax: Record<string, string>;
}

export const BLOCK = 512;
const MAX_META = 1 << 20;

function octal(value: number, width: number): string {
  return `${Math.trunc(value)
    .toString(8)
    .padStart(width - 1, "0")}\0`;
}

function header(entry: Entry, name: string, link: string, prefix: string): Buffer {
  const block = Buffer.alloc(BLOCK);
  const put = (text: string, at: number) => void block.write(text, at, "utf8");
  put(name, 0);
  put(octal(entry.mode & 0o7777, 8), 100);
  put(octal(entry.uid > 0o7777777 ? 0 : entry.uid, 8), 108);
  put(octal(entry.gid > 0o7777777 ? 0 : entry.gid, 8), 116);
  put(octal(entry.size > 0o77777777777 ? 0 : entry.size, 12), 124);
  put(octal(Math.max(0, entry.mtime), 12), 136);
  put(entry.type, 156);
  put(link, 157);
  put("ustar\x0000", 257);
  put(octal(entry.major, 8), 329);
  put(octal(entry.minor, 8), 337);
  put(prefix, 345);
  block.fill(0x20, 148, 156);
  let sum = 0;
  for (const byte of block) sum += byte;
  put(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

/** The header blocks of an entry: one, or three with pax records where something does not fit. */
export function encodeHeader(entry: Entry): Buffer {
  const pax: Record<string, string> = { ...entry.pax };
  const ascii = (text: string) => /^[\x00-\x7f]*$/.test(text);
  let name = entry.name;
  let prefix = "";
  if (name.length > 100 && ascii(name)) {
    const slash = name.lastIndexOf("/", 155);
    if (slash > 0 && name.length - slash - 1 <= 100 && name.length - slash - 1 > 0) {
      prefix = name.slice(0, slash);
      name = name.slice(slash + 1);
    }
  }
  if (Buffer.byteLength(name) > 100 || !ascii(name)) {
    pax.path = entry.name;
    name = Buffer.from(entry.name)
      .subarray(0, 100)
      .toString("latin1")
      .replace(/[^\x20-\x7e]/g, "_");
    prefix = "";
  }
  let { link } = entry;
  if (Buffer.byteLength(link) > 100 || !ascii(link)) {
    pax.linkpath = link;
    link = Buffer.from(link)
      .subarray(0, 100)
      .toString("latin1")
      .replace(/[^\x20-\x7e]/g, "_");
  }
  if (entry.size > 0o77777777777) pax.size = String(entry.size);
  if (entry.uid > 0o7777777) pax.uid = String(entry.uid);
  if (entry.gid > 0o7777777) pax.gid = String(entry.gid);
  const own = header(entry, name, link, prefix);
  const records = Object.entries(pax).map(([key, value]) => {
    const rest = ` ${key}=${value}\n`;
    let length = Buffer.byteLength(rest);
    length += String(length + String(length).length).length;
    return `${length}${rest}`;
  });
  if (records.length === 0) return own;
  const body = Buffer.from(records.join(""));
  const meta: Entry = { ...entry, type: "x", size: body.length, link: "", mode: 0o644 };
  return Buffer.concat([header(meta, `PaxHeaders.0/${name}`.slice(0, 100), "", ""), body, padding(body.length), own]);
}

/** Zeros up to the next block. */
export function padding(size: number): Buffer {
  return Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);
}

export const TRAILER = Buffer.alloc(2 * BLOCK);

function text(block: Buffer, at: number, length: number): string {
  const field = block.subarray(at, at + length);
  const end = field.indexOf(0);
  return field.toString("utf8", 0, end < 0 ? length : end);
}

function number(block: Buffer, at: number, length: number): number {
  if (block[at]! & 0x80) {
    let value = 0;
    for (let i = at + 1; i < at + length; i++) value = value * 256 + block[i]!;
    return value;
  }
  const digits = text(block, at, length).trim();
  return digits === "" ? 0 : Number.parseInt(digits, 8);
}

/** Entries of an archive with their content; the content of one must be taken, or is skipped, before the next. Throws where malformed. */
export async function* readTar(source: AsyncIterable<Uint8Array>): AsyncGenerator<{ entry: Entry; content: () => AsyncGenerator<Buffer> }> {
  const iterator = source[Symbol.asyncIterator]();
  let rest: Buffer = Buffer.alloc(0);
  const more = async (): Promise<boolean> => {
    const { value, done } = await iterator.next();
    if (done) return false;
    rest = rest.length === 0 ? Buffer.from(value.buffer, value.byteOffset, value.byteLength) : Buffer.concat([rest, value]);
    return true;
  };
  const exactly = async (size: number): Promise<Buffer | undefined> => {
    while (rest.length < size) if (!(await more())) return undefined;
    const out = rest.subarray(0, size);
    rest = rest.subarray(size);
    return out;
  };
  let pax: Record<string, string> = {};
  let longName: string | undefined;
  let longLink: string | undefined;
  for (;;) {
    const block = await exactly(BLOCK);
    if (!block) return;
    if (block.every((byte) => byte === 0)) {
      // What follows the end is drained, so that the connection can be used again.
      while (await more()) rest = Buffer.alloc(0);
      return;
    }
    const type = String.fromCharCode(block[156] || 0x30);
    const size = number(block, 124, 12);
    const blocks = Math.ceil(size / BLOCK) * BLOCK;
    if (type === "x" || type === "g" || type === "L" || type === "K") {
      if (size > MAX_META) throw new Error("malformed tar: an extended header is larger than 1 MiB");
      const body = (await exactly(blocks))?.subarray(0, size);
      if (!body) throw new Error("unexpected EOF in tar");
      if (type === "x") pax = parsePax(body);
      else if (type === "L") longName = body.toString("utf8").replace(/\0.*$/s, "");
      else if (type === "K") longLink = body.toString("utf8").replace(/\0.*$/s, "");
      continue;
    }
    const prefix = text(block, 257, 5) === "ustar" ? text(block, 345, 155) : "";
    const short = text(block, 0, 100);
    const entry: Entry = {
      name: pax.path ?? longName ?? (prefix ? `${prefix}/${short}` : short),
      type,
      mode: number(block, 100, 8),
      uid: Number(pax.uid ?? number(block, 108, 8)),
      gid: Number(pax.gid ?? number(block, 116, 8)),
      size: Number(pax.size ?? size),
      mtime: Number(pax.mtime ?? number(block, 136, 12)),
      link: pax.linkpath ?? longLink ?? text(block, 157, 100),
      major: number(block, 329, 8),
      minor: number(block, 337, 8),
      pax,
    };
    pax = {};
    longName = undefined;
    longLink = undefined;
    let left = entry.size;
    async function* content(): AsyncGenerator<Buffer> {
      while (left > 0) {
        if (rest.length === 0 && !(await more())) throw new Error("unexpected EOF in tar");
        const part = rest.subarray(0, left);
        rest = rest.subarray(part.length);
        left -= part.length;
        yield part;
      }
    }
    yield { entry, content };
    for await (const _ of content()) {
      // skipped
    }
    const pad = (BLOCK - (entry.size % BLOCK)) % BLOCK;
    if (pad > 0 && !(await exactly(pad))) throw new Error("unexpected EOF in tar");
  }
}

function parsePax(body: Buffer): Record<string, string> {
  const records: Record<string, string> = {};
  let at = 0;
  while (at < body.length) {
    const space = body.indexOf(0x20, at);
    if (space < 0) break;
    const length = Number(body.toString("latin1", at, space));
    if (!Number.isInteger(length) || length <= 0 || at + length > body.length) throw new Error("malformed tar: bad pax record");
    const record = body.toString("utf8", space + 1, at + length - 1);
    const equals = record.indexOf("=");
    records[record.slice(0, equals)] = record.slice(equals + 1);
    at += length;
  }
  return records;
}
