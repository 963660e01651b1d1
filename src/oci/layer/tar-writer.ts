// Writes tar archives that are the same bytes for the same entries: ustar where it fits, a pax header with sorted keys where it does not. Names are byte
// strings (one char, one byte).
import type { TarEntry, TarType } from "./tar-reader.ts";

const BLOCK = 512;
const FLAGS: Record<TarType, string> = { file: "0", link: "1", symlink: "2", char: "3", block: "4", directory: "5", fifo: "6" };
const MAX_OCTAL_12 = 8 ** 11 - 1;
const MAX_OCTAL_8 = 8 ** 7 - 1;

export type TarHeader = Omit<TarEntry, "xattrs"> & { xattrs?: TarEntry["xattrs"] };

/** An entry with the usual values; times at 1970. */
export function tarEntry(name: string, type: TarType, rest: Partial<TarHeader> = {}): TarHeader {
  return {
    type,
    name,
    linkname: "",
    mode: type === "directory" ? 0o755 : type === "symlink" ? 0o777 : 0o644,
    uid: 0,
    gid: 0,
    size: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    major: 0,
    minor: 0,
    ...rest,
  };
}

function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return `${length}${rest}`;
}

function splitName(name: string): [prefix: string, name: string] | undefined {
  if (name.length <= 100) return ["", name];
  for (let at = name.length - 101; at <= 155 && at < name.length - 1; at++)
    if (at > 0 && name[at] === "/") return [name.slice(0, at), name.slice(at + 1)];
  return undefined;
}

function ustar(flag: string, entry: TarHeader, prefix: string, name: string): Buffer {
  const b = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, length: number) =>
    b.write(
      `${Math.max(0, value)
        .toString(8)
        .padStart(length - 1, "0")}\0`,
      at,
      "latin1",
    );
  b.write(name, 0, 100, "latin1");
  octal(entry.mode, 100, 8);
  octal(entry.uid > MAX_OCTAL_8 ? 0 : entry.uid, 108, 8);
  octal(entry.gid > MAX_OCTAL_8 ? 0 : entry.gid, 116, 8);
  octal(entry.size > MAX_OCTAL_12 ? 0 : entry.size, 124, 12);
  octal(entry.mtimeSec > MAX_OCTAL_12 ? 0 : entry.mtimeSec, 136, 12);
  b.write("        ", 148, "latin1");
  b.write(flag, 156, "latin1");
  b.write(entry.linkname.slice(0, 100), 157, 100, "latin1");
  b.write("ustar\x0000", 257, "latin1");
  if (entry.type === "char" || entry.type === "block") {
    octal(entry.major, 329, 8);
    octal(entry.minor, 337, 8);
  }
  b.write(prefix, 345, 155, "latin1");
  let sum = 0;
  for (const byte of b) sum += byte;
  b.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return b;
}

const ascii = (text: string) => /^[\x20-\x7e]*$/.test(text);

/** Header blocks of an entry; its data (padded by tarPadding) follows. */
export function tarHeader(entry: TarHeader): Buffer {
  const pax: [string, string][] = [];
  const name = entry.type === "directory" && !entry.name.endsWith("/") ? `${entry.name}/` : entry.name;
  let split = splitName(name);
  if (!split || !ascii(name)) {
    pax.push(["path", name]);
    split ??= ["", name.slice(0, 100)];
  }
  if (entry.linkname.length > 100 || !ascii(entry.linkname)) pax.push(["linkpath", entry.linkname]);
  if (entry.mtimeNsec || entry.mtimeSec < 0 || entry.mtimeSec > MAX_OCTAL_12) {
    const fraction = entry.mtimeNsec ? `.${String(entry.mtimeNsec).padStart(9, "0").replace(/0+$/, "")}` : "";
    const before = entry.mtimeSec < 0 && entry.mtimeNsec > 0;
    const value = before
      ? `-${-entry.mtimeSec - 1}.${String(1_000_000_000 - entry.mtimeNsec)
          .padStart(9, "0")
          .replace(/0+$/, "")}`
      : `${entry.mtimeSec}${fraction}`;
    pax.push(["mtime", value]);
  }
  if (entry.uid > MAX_OCTAL_8) pax.push(["uid", String(entry.uid)]);
  if (entry.gid > MAX_OCTAL_8) pax.push(["gid", String(entry.gid)]);
  if (entry.size > MAX_OCTAL_12) pax.push(["size", String(entry.size)]);
  for (const [key, value] of entry.xattrs ?? []) pax.push([`SCHILY.xattr.${key}`, value]);
  const own = ustar(FLAGS[entry.type], entry, split[0], split[1]);
  if (pax.length === 0) return own;
  pax.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const body = Buffer.from(pax.map(([key, value]) => paxRecord(key, value)).join(""), "latin1");
  const base = name.replace(/\/+$/, "").split("/").at(-1) ?? "";
  const header = ustar(
    "x",
    tarEntry("", "file", { size: body.length }),
    "",
    `PaxHeaders.0/${base.replace(/[^\x20-\x7e]/g, "_")}`.slice(0, 100),
  );
  return Buffer.concat([header, body, tarPadding(body.length), own]);
}

/** The zeros after `size` bytes of data. */
export function tarPadding(size: number): Buffer {
  return Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);
}

/** The end of an archive. */
export const TAR_END: Uint8Array = new Uint8Array(2 * BLOCK);

/** A small archive as a whole. */
export function tarOf(files: readonly { header: TarHeader; data?: Uint8Array }[]): Buffer {
  const parts: Uint8Array[] = [];
  for (const { header, data } of files) {
    const size = data?.length ?? 0;
    parts.push(tarHeader({ ...header, size }));
    if (data) parts.push(data, tarPadding(size));
  }
  parts.push(TAR_END);
  return Buffer.concat(parts);
}
