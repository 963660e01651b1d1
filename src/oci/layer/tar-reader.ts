// Reads a tar archive that comes in pieces (POSIX pax(1), GNU tar's long names, base-256 numbers and sparse files). Names are byte strings: one char is one
// byte (latin1), so that names that are not UTF-8 survive. No file system is touched here.
import { invalidArgument } from "../../lib/errors.ts";

export type TarType = "file" | "link" | "symlink" | "char" | "block" | "directory" | "fifo";

export interface TarEntry {
  type: TarType;
  /** As it stands in the archive, not cleaned; a byte string. */
  name: string;
  /** Target of a link or symbolic link; a byte string. */
  linkname: string;
  /** Permission bits with setuid, setgid, sticky. */
  mode: number;
  uid: number;
  gid: number;
  /** Length of the file, holes included. */
  size: number;
  mtimeSec: number;
  mtimeNsec: number;
  major: number;
  minor: number;
  /** Only a part of the file's bytes is in the archive: what comes are data and holes. */
  sparse?: true;
  /** Extended attributes by name, as byte strings. */
  xattrs: [name: string, value: string][] | undefined;
}

export interface TarSink {
  entry(entry: TarEntry): void;
  data(buffer: Uint8Array, offset: number, length: number): void;
  /** So many zeros of a sparse file, in their place between its data. */
  hole(length: number): void;
  /** All data of the entry came. */
  finish(): void;
}

export interface TarReader {
  push(buffer: Uint8Array, offset: number, length: number): void;
  /** InvalidArgument where the archive ends inside an entry. */
  end(): void;
  /** The two blocks of zeros that end an archive came. */
  readonly ended: boolean;
}

const BLOCK = 512;
/** Longest pax header or long name. */
const MAX_META = 1 << 20;
const TYPES: Record<string, TarType> = {
  "0": "file",
  "\0": "file",
  "7": "file",
  "1": "link",
  "2": "symlink",
  "3": "char",
  "4": "block",
  "5": "directory",
  "6": "fifo",
};

function cString(buffer: Buffer, offset: number, length: number): string {
  const end = buffer.indexOf(0, offset);
  return buffer.toString("latin1", offset, end < 0 || end > offset + length ? offset + length : end);
}

/** Octal digits, or a big-endian two's complement number where the first bit is set (GNU's base-256). */
function parseNumber(buffer: Buffer, offset: number, length: number, what: string): number {
  const first = buffer[offset]!;
  if (first & 0x80) {
    let value = first === 0xff ? -1 : first & 0x7f;
    if (first !== 0xff && first & 0x40) throw invalidArgument(`tar: ${what} is out of range`);
    for (let i = 1; i < length; i++) value = value * 256 + buffer[offset + i]!;
    if (!Number.isSafeInteger(value)) throw invalidArgument(`tar: ${what} is out of range`);
    return value;
  }
  let i = offset;
  const end = offset + length;
  while (i < end && buffer[i] === 0x20) i++;
  let value = 0;
  for (; i < end; i++) {
    const c = buffer[i]!;
    if (c === 0 || c === 0x20) break;
    if (c < 0x30 || c > 0x37) throw invalidArgument(`tar: ${what} is not a number`);
    value = value * 8 + (c - 0x30);
  }
  return value;
}

function checksumOk(buffer: Buffer, offset: number): boolean {
  let unsigned = 8 * 0x20;
  let signed = unsigned;
  for (let i = 0; i < BLOCK; i++) {
    if (i >= 148 && i < 156) continue;
    const c = buffer[offset + i]!;
    unsigned += c;
    signed += c > 127 ? c - 256 : c;
  }
  const wanted = parseNumber(buffer, offset + 148, 8, "checksum");
  return wanted === unsigned || wanted === signed;
}

/** "1700000000.123456789" as whole seconds and nanoseconds, rounding down. */
function parseTime(value: string): [sec: number, nsec: number] {
  const match = /^(-?)(\d{1,15})(?:\.(\d*))?$/.exec(value);
  if (!match) throw invalidArgument("tar: pax time is not a number");
  const whole = Number(match[2]);
  const nsec = Number((match[3] ?? "").padEnd(9, "0").slice(0, 9));
  if (!match[1]) return [whole, nsec];
  return nsec === 0 ? [-whole, 0] : [-whole - 1, 1_000_000_000 - nsec];
}

function parseInteger(value: string, what: string): number {
  if (!/^-?\d{1,16}$/.test(value)) throw invalidArgument(`tar: pax ${what} is not a number`);
  return Number(value);
}

/** The records "LENGTH KEY=VALUE\n" of a pax header, later ones winning; an empty value takes the key away. */
function parsePax(buffer: Buffer, into: Map<string, string>): void {
  let at = 0;
  while (at < buffer.length) {
    let space = at;
    while (space < buffer.length && buffer[space] !== 0x20 && space - at < 10) space++;
    const length = Number.parseInt(buffer.toString("latin1", at, space), 10);
    const end = at + length;
    if (!(length > 4) || end > buffer.length || buffer[end - 1] !== 0x0a) throw invalidArgument("tar: pax header is malformed");
    const equals = buffer.indexOf(0x3d, space);
    if (equals < 0 || equals >= end) throw invalidArgument("tar: pax header is malformed");
    const key = buffer.toString("latin1", space + 1, equals);
    const value = buffer.toString("latin1", equals + 1, end - 1);
    if ((key === "path" || key === "linkpath") && value.includes("\0")) throw invalidArgument("tar: a name holds a NUL byte");
    if (value === "") into.delete(key);
    else if (key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes") {
      // Version 0.0 repeats the two where later ones have a list.
      const before = into.get(SPARSE_MAP);
      into.set(SPARSE_MAP, before === undefined ? value : `${before},${value}`);
    } else into.set(key, value);
    at = end;
  }
}

const XATTR = "SCHILY.xattr.";
const SPARSE_MAP = "GNU.sparse.map";

/** How a pax header describes a sparse file; "after": by a list that stands before the data (version 1.0). */
function sparseOf(entry: TarEntry, pax: Map<string, string>): Sparse | "after" | undefined {
  const major = pax.get("GNU.sparse.major");
  const map = pax.get(SPARSE_MAP);
  if (major === undefined && map === undefined && !pax.has("GNU.sparse.size")) return undefined;
  const size = parseInteger(pax.get(major === undefined ? "GNU.sparse.size" : "GNU.sparse.realsize") ?? "", "sparse size");
  entry.name = pax.get("GNU.sparse.name") ?? entry.name;
  const stored = entry.size;
  entry.size = size;
  if (major === undefined) return checkedSparse((map ?? "").split(",").filter(Boolean).map(sparseNumber), size, stored);
  if (major !== "1" || (pax.get("GNU.sparse.minor") ?? "0") !== "0") throw invalidArgument("tar: unknown version of a sparse file");
  return "after";
}

function applyPax(entry: TarEntry, pax: Map<string, string>): void {
  for (const [key, value] of pax) {
    if (key === "path") entry.name = value;
    else if (key === "linkpath") entry.linkname = value;
    else if (key === "size") entry.size = parseInteger(value, key);
    else if (key === "uid") entry.uid = parseInteger(value, key);
    else if (key === "gid") entry.gid = parseInteger(value, key);
    else if (key === "mtime") [entry.mtimeSec, entry.mtimeNsec] = parseTime(value);
    else if (key.startsWith(XATTR)) {
      entry.xattrs ??= [];
      entry.xattrs.push([key.slice(XATTR.length), value]);
    }
  }
}

function parseHeader(b: Buffer, at: number): { flag: string; entry: TarEntry } {
  const flag = String.fromCharCode(b[at + 156]!);
  let name = cString(b, at, 100);
  const magic = b.toString("latin1", at + 257, at + 263);
  if (magic === "ustar\0") {
    const prefix = cString(b, at + 345, 155);
    if (prefix) name = `${prefix}/${name}`;
  }
  const device = flag === "3" || flag === "4";
  const entry: TarEntry = {
    type: TYPES[flag] ?? "file",
    name,
    linkname: cString(b, at + 157, 100),
    mode: parseNumber(b, at + 100, 8, "mode") & 0o7777,
    uid: parseNumber(b, at + 108, 8, "uid"),
    gid: parseNumber(b, at + 116, 8, "gid"),
    size: parseNumber(b, at + 124, 12, "size"),
    mtimeSec: parseNumber(b, at + 136, 12, "mtime"),
    mtimeNsec: 0,
    major: device ? parseNumber(b, at + 329, 8, "major") : 0,
    minor: device ? parseNumber(b, at + 337, 8, "minor") : 0,
    xattrs: undefined,
  };
  return { flag, entry };
}

/** What of a sparse file is in the archive: [place, length] of each piece, one after the other. */
interface Sparse {
  map: number[];
  /** Index of the piece that comes next, or is coming. */
  next: number;
  /** Place in the file. */
  at: number;
  size: number;
}

const MAX_PIECES = 1 << 20;
const GNU_PIECE = 24;

function sparseNumber(text: string): number {
  if (!/^\d{1,16}$/.test(text)) throw invalidArgument("tar: the map of a sparse file is malformed");
  return Number(text);
}

/** Pieces in order, within the file, and as long as what the archive holds. */
function checkedSparse(map: number[], size: number, stored: number): Sparse {
  if (map.length % 2 || map.length > 2 * MAX_PIECES) throw invalidArgument("tar: the map of a sparse file is malformed");
  let at = 0;
  let sum = 0;
  for (let i = 0; i < map.length; i += 2) {
    if (map[i]! < at) throw invalidArgument("tar: the map of a sparse file is not in order");
    at = map[i]! + map[i + 1]!;
    sum += map[i + 1]!;
  }
  if (at > size || sum !== stored || !Number.isSafeInteger(size))
    throw invalidArgument("tar: the map of a sparse file does not fit its size");
  return { map, next: 0, at: 0, size };
}

/** The pieces that a block of GNU tar's old form names, up to the first empty one. */
function gnuPieces(b: Buffer, at: number, count: number, into: number[]): void {
  for (let i = 0; i < count; i++) {
    const place = at + i * GNU_PIECE;
    if (b[place] === 0) return;
    into.push(parseNumber(b, place, 12, "sparse offset"), parseNumber(b, place + 12, 12, "sparse length"));
  }
}

export function createTarReader(sink: TarSink): TarReader {
  const carry = Buffer.alloc(BLOCK);
  let carried = 0;
  /** Bytes of the entry's data, then of its padding, that are still to come. */
  let data = 0;
  let padding = 0;
  /** A pax header or a long name being collected. */
  let meta: { flag: string; buffer: Buffer; filled: number } | undefined;
  let inEntry = false;
  let zeroBlocks = 0;
  const pax = new Map<string, string>();
  let longName: string | undefined;
  let longLink: string | undefined;
  let sparse: Sparse | undefined;
  /** A sparse file's list that is still coming: blocks after the header (old form), or lines before the data (pax 1.0). */
  let listing: { entry: TarEntry; stored: number; map: number[]; lines?: Buffer } | undefined;

  const begin = (entry: TarEntry, stored: number) => {
    data = stored;
    padding = (BLOCK - (data % BLOCK)) % BLOCK;
    sink.entry(entry);
    inEntry = true;
    if (data === 0) finish();
  };
  const finish = () => {
    inEntry = false;
    if (sparse && sparse.at < sparse.size) sink.hole(sparse.size - sparse.at);
    sparse = undefined;
    sink.finish();
  };
  const beginSparse = (entry: TarEntry, map: number[], stored: number) => {
    listing = undefined;
    sparse = checkedSparse(map, entry.size, stored);
    begin(entry, stored);
  };

  /** Data of the entry: of a sparse one each piece at its place. */
  const deliver = (input: Uint8Array, offset: number, length: number) => {
    if (!sparse) {
      sink.data(input, offset, length);
      return;
    }
    let at = offset;
    const end = offset + length;
    while (at < end) {
      const place = sparse.map[sparse.next]!;
      if (sparse.at < place) {
        sink.hole(place - sparse.at);
        sparse.at = place;
      }
      const left = place + sparse.map[sparse.next + 1]! - sparse.at;
      const n = Math.min(left, end - at);
      if (n > 0) sink.data(input, at, n);
      at += n;
      sparse.at += n;
      if (n === left) sparse.next += 2;
    }
  };

  /** A further block of a sparse file's list. */
  const extend = (b: Buffer, at: number) => {
    const { entry, map, stored, lines } = listing!;
    if (!lines) {
      gnuPieces(b, at, 21, map);
      if (map.length > 2 * MAX_PIECES) throw invalidArgument("tar: the map of a sparse file is too long");
      if (b[at + 504] === 0) beginSparse(entry, map, stored);
      return;
    }
    const text = Buffer.concat([lines, b.subarray(at, at + BLOCK)]);
    listing!.stored = stored - BLOCK;
    let from = 0;
    for (let end = text.indexOf(0x0a, from); end >= 0; end = text.indexOf(0x0a, from)) {
      map.push(sparseNumber(text.toString("latin1", from, end)));
      from = end + 1;
      if (map[0]! > MAX_PIECES) throw invalidArgument("tar: the map of a sparse file is too long");
      if (map.length === 1 + 2 * map[0]!) {
        beginSparse(entry, map.slice(1), listing!.stored);
        return;
      }
    }
    if (text.length - from > 32 || listing!.stored < BLOCK) throw invalidArgument("tar: the map of a sparse file is malformed");
    listing!.lines = text.subarray(from);
  };

  const closeMeta = (done: NonNullable<typeof meta>) => {
    meta = undefined;
    if (done.flag === "x") parsePax(done.buffer, pax);
    else if (done.flag === "L") longName = cString(done.buffer, 0, done.buffer.length);
    else if (done.flag === "K") longLink = cString(done.buffer, 0, done.buffer.length);
  };

  const header = (b: Buffer, at: number) => {
    if (listing) return extend(b, at);
    if (b[at] === 0 && isZero(b, at)) {
      zeroBlocks++;
      return;
    }
    if (zeroBlocks > 0) throw invalidArgument("tar: data after a block of zeros");
    if (!checksumOk(b, at)) throw invalidArgument("tar: invalid header (wrong checksum)");
    const { flag, entry } = parseHeader(b, at);
    if (entry.size < 0) throw invalidArgument("tar: negative size");
    if (flag === "x" || flag === "L" || flag === "K" || flag === "g") {
      if (entry.size > MAX_META) throw invalidArgument(`tar: a header of ${entry.size} bytes is too long`);
      meta = { flag, buffer: Buffer.alloc(entry.size), filled: 0 };
      data = entry.size;
      padding = (BLOCK - (data % BLOCK)) % BLOCK;
      if (data === 0) closeMeta(meta);
      return;
    }
    if (flag !== "S" && !(flag in TYPES)) throw invalidArgument(`tar: ${entry.name}: unhandled tar header type ${flag.charCodeAt(0)}`);
    if (longName !== undefined) entry.name = longName;
    if (longLink !== undefined) entry.linkname = longLink;
    longName = undefined;
    longLink = undefined;
    let form: Sparse | "after" | undefined;
    let stored = entry.size;
    if (pax.size) {
      applyPax(entry, pax);
      stored = entry.size;
      if (flag in TYPES && entry.type === "file") form = sparseOf(entry, pax);
      pax.clear();
    }
    for (const size of [entry.size, stored])
      if (size < 0 || !Number.isSafeInteger(size)) throw invalidArgument("tar: size is out of range");
    if (entry.type === "file" && entry.name.endsWith("/")) entry.type = "directory";
    // Only files have data; Go's reader, too, takes the size of other types as zero, and some writers put a link's size there.
    if (entry.type !== "file") entry.size = 0;
    if (entry.type === "file" && (flag === "S" || form)) return sparseEntry(b, at, entry, flag === "S" ? "S" : form!, stored);
    begin(entry, entry.type === "file" ? stored : 0);
  };

  const sparseEntry = (b: Buffer, at: number, entry: TarEntry, form: Sparse | "after" | "S", stored: number) => {
    entry.sparse = true;
    if (form === "S") {
      const map: number[] = [];
      gnuPieces(b, at + 386, 4, map);
      entry.size = parseNumber(b, at + 483, 12, "sparse size");
      if (entry.size < 0) throw invalidArgument("tar: size is out of range");
      if (b[at + 482] === 0) beginSparse(entry, map, stored);
      else listing = { entry, stored, map };
    } else if (form === "after") {
      if (stored < BLOCK) throw invalidArgument("tar: the map of a sparse file is malformed");
      listing = { entry, stored, map: [], lines: Buffer.alloc(0) };
    } else {
      sparse = form;
      begin(entry, stored);
    }
  };

  const push = (input: Uint8Array, offset: number, length: number) => {
    const b = Buffer.from(input.buffer, input.byteOffset, input.byteLength);
    let at = offset;
    const end = offset + length;
    while (at < end) {
      if (data > 0) {
        const n = Math.min(data, end - at);
        if (meta) {
          b.copy(meta.buffer, meta.filled, at, at + n);
          meta.filled += n;
        } else deliver(input, at, n);
        at += n;
        data -= n;
        if (data === 0) {
          if (meta) closeMeta(meta);
          else if (inEntry) finish();
        }
      } else if (padding > 0) {
        const n = Math.min(padding, end - at);
        at += n;
        padding -= n;
      } else if (zeroBlocks >= 2) {
        return;
      } else if (carried > 0 || end - at < BLOCK) {
        const n = Math.min(BLOCK - carried, end - at);
        b.copy(carry, carried, at, at + n);
        carried += n;
        at += n;
        if (carried === BLOCK) {
          carried = 0;
          header(carry, 0);
        }
      } else {
        header(b, at);
        at += BLOCK;
      }
    }
  };

  return {
    push,
    get ended() {
      return zeroBlocks >= 2;
    },
    end() {
      if (zeroBlocks < 2 && (data > 0 || carried > 0 || meta || listing || inEntry || pax.size > 0 || longName !== undefined))
        throw invalidArgument("tar: unexpected EOF (the archive is truncated)");
    },
  };
}

function isZero(b: Buffer, at: number): boolean {
  for (let i = 0; i < BLOCK; i++) if (b[at + i] !== 0) return false;
  return true;
}
