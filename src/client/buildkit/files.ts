// A directory for a build, by fsutil's protocol: each file is described in the order of a walk (names compared component by component), an empty description ends
// them; the engine asks for contents by number, and says when it has all. .dockerignore's patterns come from the engine and are applied here, so that what is
// left out is never read.
import { closeSync, type Dirent, lstatSync, openSync, readdirSync, readlinkSync, readSync, realpathSync } from "node:fs";
import { join, posix } from "node:path";
import { messageOf } from "../../lib/errors.ts";
import { toGoMode } from "../../lib/go-mode.ts";
import type { ServerCall } from "../../lib/grpc/server.ts";
import { createMatcher } from "../../lib/ignore.ts";
import { PACKET, Packet, type Stat } from "./messages.ts";

const PIECE = 64 << 10;
/** After so long what the engine says is listened to. */
const BREATH_MS = 20;

export interface Wanted {
  includePatterns: readonly string[];
  excludePatterns: readonly string[];
  followPaths: readonly string[];
}

const hasWildcard = (path: string) => /[*?[\\]/.test(path);

/** What a path leads through: itself, and where symbolic links on its way lead, as far as they stay within the root. */
function followed(root: string, paths: readonly string[]): string[] {
  const found = new Set<string>();
  const visit = (path: string, depth: number) => {
    const clean = posix.join("/", path).slice(1);
    if (clean === "" || depth > 40 || found.size > 100_000) return;
    const parts = clean.split("/");
    for (let i = 0; i < parts.length; i++) {
      const part = parts[i]!;
      const above = parts.slice(0, i).join("/");
      if (hasWildcard(part)) {
        const fits = createMatcher([part]);
        let names: string[] = [];
        try {
          names = readdirSync(join(root, above)).filter((name) => fits(name));
        } catch {
          // a directory that is not there has no names
        }
        for (const name of names) visit([above, name, ...parts.slice(i + 1)].filter(Boolean).join("/"), depth);
        return;
      }
      const here = [above, part].filter(Boolean).join("/");
      const stat = lstatSync(join(root, here), { throwIfNoEntry: false });
      // nothing is below a file, though a pattern may look there
      if (!stat || stat.isFile()) break;
      if (!stat.isSymbolicLink()) continue;
      found.add(here);
      const target = readlinkSync(join(root, here));
      const rest = parts.slice(i + 1).join("/");
      visit(posix.join(target.startsWith("/") ? target : posix.join("/", above, target), rest), depth + 1);
      return;
    }
    found.add(clean);
  };
  for (const path of paths) visit(path, 0);
  return [...found];
}

/** In the order of bytes, which for surrogates is not that of strings. */
function byBytes({ name: a }: Dirent, { name: b }: Dirent): number {
  if (/[\ud800-\udfff]/.test(a + b)) return Buffer.compare(Buffer.from(a), Buffer.from(b));
  return a < b ? -1 : 1;
}

interface Entry {
  path: string;
  full: string;
}

/** Files below a directory that are wanted. A directory is told only where something in it is, or where it is wanted itself. */
function* walk(root: string, wanted: Wanted): Generator<Entry> {
  const ignored = wanted.excludePatterns.length > 0 ? createMatcher(wanted.excludePatterns) : undefined;
  const exceptions = wanted.excludePatterns.some((pattern) => pattern.startsWith("!"));
  const only = wanted.followPaths.length > 0 ? new Set(followed(root, wanted.followPaths)) : undefined;
  const above = new Set<string>();
  for (const path of only ?? []) for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1)) above.add(path.slice(0, at));
  const included = wanted.includePatterns.length > 0 ? createMatcher(wanted.includePatterns) : undefined;

  function* below(directory: string, within: boolean): Generator<Entry> {
    const entries: Dirent[] = readdirSync(join(root, directory), { withFileTypes: true });
    entries.sort(byBytes);
    for (const entry of entries) {
      const path = directory === "" ? entry.name : `${directory}/${entry.name}`;
      const here = within || (only?.has(path) ?? true);
      if (!here && !above.has(path)) continue;
      const out = ignored?.(path) ?? false;
      const full = join(root, path);
      if (entry.isDirectory()) {
        const inner = out && !exceptions ? [] : below(path, here);
        const alone = !out && here && !included;
        let told = alone;
        if (alone) yield { path, full };
        for (const each of inner) {
          if (!told) yield { path, full };
          told = true;
          yield each;
        }
      } else if (!out && here && (included?.(path) ?? true)) yield { path, full };
    }
  }
  yield* below("", only === undefined);
}

function describe({ path, full }: Entry, seen: Map<string, string>): { stat: Stat; regular: boolean } | undefined {
  const stat = lstatSync(full, { bigint: true, throwIfNoEntry: false });
  if (!stat || stat.isSocket()) return undefined;
  let linkname = "";
  if (stat.isSymbolicLink()) linkname = readlinkSync(full);
  else if (stat.isFile() && stat.nlink > 1n) {
    const inode = `${stat.dev}:${stat.ino}`;
    linkname = seen.get(inode) ?? "";
    if (linkname === "") seen.set(inode, path);
  }
  const device = stat.isCharacterDevice() || stat.isBlockDevice();
  const regular = stat.isFile() && linkname === "";
  return {
    stat: {
      path,
      mode: toGoMode(Number(stat.mode)),
      uid: 0,
      gid: 0,
      size: regular ? stat.size : 0n,
      modTime: stat.mtimeNs,
      linkname,
      devmajor: device ? (stat.rdev >> 8n) & 0xfffn : 0n,
      devminor: device ? (stat.rdev & 0xffn) | ((stat.rdev >> 12n) & 0xfff00n) : 0n,
      xattrs: {},
    },
    regular,
  };
}

/** Answers a call of FileSync.DiffCopy. */
export async function sendDirectory(root: string, wanted: Wanted, call: ServerCall): Promise<void> {
  const send = (packet: Partial<Packet>) => call.send(Packet.encode(packet));
  try {
    const base = realpathSync(root);
    const files: (string | undefined)[] = [];
    const seen = new Map<string, string>();
    let last = performance.now();
    for (const entry of walk(base, wanted)) {
      const described = describe(entry, seen);
      if (!described) continue;
      files.push(described.regular ? entry.full : undefined);
      send({ type: PACKET.STAT, stat: described.stat });
      if (performance.now() - last < BREATH_MS) continue;
      await new Promise((resolve) => setImmediate(resolve));
      await call.room();
      last = performance.now();
    }
    send({ type: PACKET.STAT });
    for await (const batch of call.batches()) {
      for (const message of batch) {
        const packet = Packet.decode(message);
        if (packet.type === PACKET.REQ) await sendContents(packet.ID, files[packet.ID], call);
        else if (packet.type === PACKET.FIN) {
          send({ type: PACKET.FIN });
          return;
        } else if (packet.type === PACKET.ERR) throw new Error(Buffer.from(packet.data).toString());
      }
    }
  } catch (error) {
    send({ type: PACKET.ERR, data: Buffer.from(messageOf(error)) });
  }
}

/** Read at once and not by a stream, whose thread costs more than most files. */
async function sendContents(id: number, path: string | undefined, call: ServerCall): Promise<void> {
  if (path === undefined) throw new Error(`the builder asked for the file ${id}, which there is none of`);
  const fd = openSync(path, "r");
  try {
    for (;;) {
      const piece = Buffer.allocUnsafe(PIECE);
      const length = readSync(fd, piece);
      if (length === 0) break;
      call.send(Packet.encode({ type: PACKET.DATA, ID: id, data: piece.subarray(0, length) }));
      await call.room();
    }
  } finally {
    closeSync(fd);
  }
  call.send(Packet.encode({ type: PACKET.DATA, ID: id }));
}
