// Directories that clients sent, kept between builds so that the next one sends only what changed. A directory is a build's own while it is used; builds of the
// same context at once have one each. Beside it lies what it holds, as the client described it; that file is missing while the directory is being changed, so that what a killed
// engine left is not trusted.
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { BinaryReader, BinaryWriter } from "@bufbuild/protobuf/wire";
import type { LocalDirectory, LocalRequest, Status } from "../../build/index.ts";
import { type Stat, StatSchema } from "../../gen/fsutil/types_pb.ts";
import { close, O_DIRECTORY, O_RDONLY, open } from "../../linux/index.ts";
import { receiveFiles } from "./filesync.ts";
import type { Session } from "./sessions.ts";
import { bytesOf, type TreeIndex } from "./tree-writer.ts";

/** Idle directories that are kept: of one client's directory, of all, and their bytes. */
const MAX_ALIKE = 2;
const MAX_IDLE = 64;
const MAX_BYTES = 4 * 2 ** 30;

export interface LocalRecord {
  id: string;
  name: string;
  size: number;
  /** Milliseconds since 1970. */
  created: number;
  used: number;
  inUse: boolean;
}

export interface Locals {
  receive(session: Session, request: LocalRequest, status: (status: Status) => void, signal: AbortSignal): Promise<LocalDirectory>;
  list(): LocalRecord[];
  /** Removes idle directories; answers which. */
  prune(keep: (record: LocalRecord) => boolean): Promise<LocalRecord[]>;
}

interface Kept extends LocalRecord {
  key: string;
  path: string;
}

const NAME = /^([0-9a-f]{32})-([0-9a-f]{8})$/;

function encodeIndex(name: string, index: TreeIndex): { bytes: Uint8Array; size: number } {
  const writer = new BinaryWriter().string(name);
  let size = 0;
  for (const stat of index.values()) {
    writer.bytes(toBinary(StatSchema, stat));
    size += Number(stat.size);
  }
  return { bytes: writer.finish(), size };
}

function decodeIndex(bytes: Uint8Array): { name: string; index: TreeIndex } {
  const reader = new BinaryReader(bytes);
  const name = reader.string();
  const index: TreeIndex = new Map();
  while (reader.pos < reader.len) {
    const stat: Stat = fromBinary(StatSchema, reader.bytes());
    index.set(bytesOf(stat.path), stat);
  }
  return { name, index };
}

export function createLocals(dataDir: string, log: (message: string) => void): Locals {
  const idle = new Map<string, Kept>();
  const busy = new Map<string, Kept>();
  let read = false;

  /** What earlier engines left: whole directories are taken over, others removed. */
  function recover(): void {
    if (read) return;
    read = true;
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    for (const entry of readdirSync(dataDir)) {
      const match = NAME.exec(entry);
      const path = join(dataDir, entry);
      try {
        if (!match) throw new Error("not ours");
        const { mtimeMs, birthtimeMs } = statSync(join(path, "index"));
        const { name, index } = decodeIndex(readFileSync(join(path, "index")));
        const size = [...index.values()].reduce((sum, stat) => sum + Number(stat.size), 0);
        idle.set(entry, { id: entry, key: match[1]!, path, name, size, created: birthtimeMs, used: mtimeMs, inUse: false });
      } catch {
        void rm(path, { recursive: true, force: true });
      }
    }
  }

  async function discard(kept: Kept): Promise<void> {
    await rm(kept.path, { recursive: true, force: true }).catch((error) => log(`removing ${kept.path}: ${error}`));
  }

  async function shrink(): Promise<void> {
    const alike = new Map<string, number>();
    let bytes = 0;
    let count = 0;
    for (const kept of [...idle.values()].sort((a, b) => b.used - a.used)) {
      const same = (alike.get(kept.key) ?? 0) + 1;
      alike.set(kept.key, same);
      count++;
      bytes += kept.size;
      if (same <= MAX_ALIKE && count <= MAX_IDLE && bytes <= MAX_BYTES) continue;
      idle.delete(kept.id);
      await discard(kept);
    }
  }

  return {
    async receive(session, request, status, signal) {
      recover();
      const { name, sharedKeyHint } = request;
      const key = createHash("sha256")
        .update(JSON.stringify([name, sharedKeyHint, session.sharedKey]))
        .digest("hex")
        .slice(0, 32);
      const found = [...idle.values()].filter((kept) => kept.key === key).sort((a, b) => b.used - a.used)[0];
      const now = Date.now();
      const id = found?.id ?? `${key}-${randomBytes(4).toString("hex")}`;
      const path = join(dataDir, id);
      const kept: Kept = found ?? { id, key, path, name, size: 0, created: now, used: now, inUse: true };
      idle.delete(id);
      kept.inUse = true;
      busy.set(id, kept);
      const files = join(path, "files");
      const title = `transferring ${name}:`;
      let told = 0;
      let written = false;
      const tell = (current: number, completed: boolean) => status({ id: title, name: title, current, total: 0, completed });
      try {
        let before: TreeIndex = new Map();
        if (found) before = decodeIndex(readFileSync(join(path, "index"))).index;
        if (!found) mkdirSync(files, { recursive: true, mode: 0o755 });
        const root = open(files, O_RDONLY | O_DIRECTORY);
        try {
          const index = await receiveFiles(
            session,
            { ...request, trust: request.differ !== "none" },
            root,
            before,
            () => rmSync(join(path, "index"), { force: true }),
            (bytes) => {
              told = bytes;
              tell(bytes, false);
            },
            signal,
          );
          tell(told, true);
          const after = index ?? (found ? undefined : new Map());
          if (after) {
            const { bytes, size } = encodeIndex(name, after);
            kept.size = size;
            writeFileSync(join(path, "index.new"), bytes, { mode: 0o600 });
            written = true;
          }
        } finally {
          close(root);
        }
      } catch (error) {
        busy.delete(id);
        await discard(kept);
        throw error;
      }
      let released = false;
      return {
        directory: files,
        async release() {
          if (released) return;
          released = true;
          busy.delete(id);
          try {
            if (written) renameSync(join(path, "index.new"), join(path, "index"));
            else utimesSync(join(path, "index"), new Date(), new Date());
            kept.used = Date.now();
            kept.inUse = false;
            idle.set(id, kept);
          } catch (error) {
            log(`keeping ${path}: ${error}`);
            return discard(kept);
          }
          await shrink();
        },
      };
    },
    list() {
      recover();
      return [...busy.values(), ...idle.values()];
    },
    async prune(keep) {
      recover();
      const gone = [...idle.values()].filter((kept) => !keep(kept));
      for (const kept of gone) {
        idle.delete(kept.id);
        await discard(kept);
      }
      return gone;
    },
  };
}
