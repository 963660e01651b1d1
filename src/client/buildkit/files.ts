// A directory for a build, by fsutil's protocol: each file is described in the order of a walk (names compared component by component), an empty description ends
// them; the engine asks for contents by number, and says when it has all. .dockerignore's patterns come from the engine and are applied here, so that what is
// left out is never read.
import { createReadStream, type Dirent, lstatSync, readdirSync, readlinkSync, realpathSync, statSync } from "node:fs";
import { join, posix } from "node:path";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Packet, PacketSchema, PacketType, StatSchema } from "../../gen/fsutil/types_pb.ts";
import { messageOf } from "../../lib/errors.ts";
import { toGoMode } from "../../lib/go-mode.ts";
import { createMatcher } from "../../lib/ignore.ts";

type Init = MessageInitShape<typeof PacketSchema>;
const { PACKET_STAT, PACKET_REQ, PACKET_DATA, PACKET_FIN, PACKET_ERR } = PacketType;
const PIECE = 64 << 10;

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
      if (!stat) break;
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
    entries.sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)));
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

function describe({ path, full }: Entry, seen: Map<string, string>): { packet: Init; regular: boolean } | undefined {
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
  const message = create(StatSchema, {
    path,
    mode: toGoMode(Number(stat.mode)),
    size: stat.isFile() && linkname === "" ? stat.size : 0n,
    modTime: stat.mtimeNs,
    linkname,
    devmajor: device ? (stat.rdev >> 8n) & 0xfffn : 0n,
    devminor: device ? (stat.rdev & 0xffn) | ((stat.rdev >> 12n) & 0xfff00n) : 0n,
  });
  return { packet: { type: PACKET_STAT, stat: message }, regular: stat.isFile() && linkname === "" };
}

/** Answers a call of FileSync.DiffCopy. */
export async function* sendDirectory(root: string, wanted: Wanted, packets: AsyncIterable<Packet>): AsyncGenerator<Packet> {
  const base = realpathSync(root);
  const queue: (Packet | (() => AsyncGenerator<Packet>))[] = [];
  let wake = () => {};
  let done = false;
  let failed: unknown;
  const push = (item: (typeof queue)[number]) => {
    queue.push(item);
    wake();
  };
  const files: (string | undefined)[] = [];
  const contents = async function* (id: number): AsyncGenerator<Packet> {
    const path = files[id];
    if (path === undefined) throw new Error(`the builder asked for the file ${id}, which there is none of`);
    for await (const piece of createReadStream(path, { highWaterMark: PIECE }))
      yield create(PacketSchema, { type: PACKET_DATA, ID: id, data: piece as Uint8Array });
    yield create(PacketSchema, { type: PACKET_DATA, ID: id });
  };
  const reading = (async () => {
    for await (const packet of packets) {
      if (packet.type === PACKET_REQ) push(() => contents(packet.ID));
      else if (packet.type === PACKET_FIN) {
        push(create(PacketSchema, { type: PACKET_FIN }));
        break;
      } else if (packet.type === PACKET_ERR) throw new Error(Buffer.from(packet.data).toString());
    }
  })()
    .catch((error: unknown) => {
      failed = error;
    })
    .finally(() => {
      done = true;
      wake();
    });
  try {
    const seen = new Map<string, string>();
    for (const entry of walk(base, wanted)) {
      const described = describe(entry, seen);
      if (!described) continue;
      files.push(described.regular ? entry.full : undefined);
      yield create(PacketSchema, described.packet);
    }
    yield create(PacketSchema, { type: PACKET_STAT });
    for (;;) {
      const next = queue.shift();
      if (typeof next === "function") yield* next();
      else if (next) yield next;
      else if (failed) throw failed;
      else if (done) return;
      else
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    }
  } catch (error) {
    yield create(PacketSchema, { type: PACKET_ERR, data: Buffer.from(messageOf(error)) });
  } finally {
    await Promise.race([reading, Promise.resolve()]);
  }
}

export function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
