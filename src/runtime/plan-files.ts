// Templates of plans on disk, for the next process: root's in /run/jubako/plans, a user's below his XDG_RUNTIME_DIR. A command line plans one
// container and is over, and planning cold takes longer than the kernel takes to make the container. As with compiled filters (seccomp.ts),
// whoever could write there could choose what a container may do.
//
// A file: u32 magic, length of the key, number of blanks, length of the encoded tape; the blanks, two u32 each; the tape; the key. Its name is
// a hash of the key, and what it says is taken where the whole key is the same.
import {
  binding,
  close,
  fstatSync,
  mkdirSync,
  O_RDONLY,
  readdirSync,
  renameSync,
  SYS,
  textOf,
  unlinkSync,
  utf8,
  writeFileSync,
} from "../linux/index.ts";
import { hashOf } from "./hash.ts";
import type { Template } from "./plan/template.ts";

const MAGIC = 0x31504a01;
const HEADER = 16;
const MOST_BYTES = 512 * 1024;
/** Each takes some 40 KB; where there are more, all begin anew. */
const MOST_FILES = 64;

export interface PlanFiles {
  find(key: string): Template | undefined;
  keep(key: string, template: Template): void;
}

export function defaultPlanDirectory(): string {
  if (process.geteuid?.() === 0) return "/run/jubako/plans";
  return `${process.env.XDG_RUNTIME_DIR ?? "/nonexistent"}/jubako/plans`;
}

export function planFiles(directory: string): PlanFiles {
  const fileOf = (key: string) => `${directory}/${hashOf(utf8(key))}`;
  return {
    find(key) {
      const fd = binding.syscall(SYS.openat, -100, fileOf(key), O_RDONLY | 0o400000 | 0o2000000, 0);
      if (fd < 0) return undefined;
      try {
        const { uid, mode } = fstatSync(fd);
        if (uid !== process.geteuid?.() || mode & 0o022) return undefined;
        const size = binding.syscall(SYS.lseek, fd, 0, 2);
        if (size < HEADER || size > MOST_BYTES) return undefined;
        const file = new Uint8Array(size);
        if (binding.syscall(SYS.pread64, fd, file, size, 0) !== size) return undefined;
        return parse(file, key);
      } finally {
        close(fd);
      }
    },
    keep(key, template) {
      try {
        const file = serialize(key, template);
        if (file.length > MOST_BYTES) return;
        mkdirSync(directory, { recursive: true, mode: 0o700 });
        const names = readdirSync(directory);
        if (names.length >= MOST_FILES) for (const name of names) unlinkSync(`${directory}/${name}`);
        const temporary = `${fileOf(key)}.${process.pid}`;
        writeFileSync(temporary, file, { mode: 0o600, flag: "wx" });
        renameSync(temporary, fileOf(key));
      } catch {
        // The next one plans again.
      }
    },
  };
}

function parse(file: Uint8Array, key: string): Template | undefined {
  const words = new Uint32Array(file.buffer, 0, file.length >> 2);
  const keyLength = words[1]!;
  const count = words[2]!;
  const at = HEADER + 8 * count;
  const end = at + words[3]!;
  if (words[0] !== MAGIC || end + keyLength !== file.length) return undefined;
  if (textOf(file.subarray(end)) !== key) return undefined;
  const blanks: Template["blanks"] = [];
  for (let i = 0; i < count; i++) blanks.push([words[4 + 2 * i]!, words[5 + 2 * i]!]);
  return { encoded: file.subarray(at, end), blanks };
}

function serialize(key: string, { encoded, blanks }: Template): Uint8Array {
  const text = utf8(key);
  const at = HEADER + 8 * blanks.length;
  const file = new Uint8Array(at + encoded.length + text.length);
  new Uint32Array(file.buffer, 0, at >> 2).set([MAGIC, text.length, blanks.length, encoded.length, ...blanks.flat()]);
  file.set(encoded, at);
  file.set(text, at + encoded.length);
  return file;
}
