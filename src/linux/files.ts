// Files by system calls, with the names and the arguments that node:fs has for what is here. For programs whose start counts: node:fs takes two
// milliseconds to load, a third of what an empty program needs. What fails throws SystemError, whose `code` is as node:fs has it.
import { binding } from "./binding.ts";
import { check, errno } from "./errno.ts";
import { AT_FDCWD, AT_SYMLINK_NOFOLLOW, close, O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_TRUNC, O_WRONLY, open } from "./fd.ts";
import { SYS } from "./sys.ts";

/** /proc/PID/uid_map of a process that is in no user namespace but the machine's own. */
const INITIAL_MAP = "         0          0 4294967295\n";

const CHUNK = 16 * 1024;
const PATH_MAX = 4096;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
let chunk: Uint8Array | undefined;

/** A string's bytes. */
export const utf8 = (text: string): Uint8Array<ArrayBuffer> => encoder.encode(text);
export const textOf = (bytes: Uint8Array): string => decoder.decode(bytes);

/** A path, or a descriptor, which stays open. */
export function readFileSync(path: string | number, _encoding: "utf8"): string {
  return withContent(path, textOf);
}

export function readBytesSync(path: string | number): Uint8Array<ArrayBuffer> {
  return withContent(path, (bytes) => bytes.slice());
}

function withContent<T>(path: string | number, use: (bytes: Uint8Array) => T): T {
  const fd = typeof path === "string" ? open(path, 0) : path;
  try {
    chunk ??= new Uint8Array(CHUNK);
    let buffer = chunk;
    let used = 0;
    // Files of proc and sysfs have no size.
    for (;;) {
      if (used === buffer.length) {
        const grown = new Uint8Array(used * 4);
        grown.set(buffer);
        buffer = grown;
      }
      const n = binding.syscall(SYS.read, fd, used === 0 ? buffer : buffer.subarray(used), buffer.length - used);
      if (n === -errno.EINTR) continue;
      if (n < 0) check(n, `read ${path}`);
      if (n === 0) break;
      used += n;
    }
    return use(buffer.subarray(0, used));
  } finally {
    if (typeof path === "string") close(fd);
  }
}

function writeAll(path: string, flags: number, mode: number, content: string | Uint8Array): void {
  let rest = typeof content === "string" ? encoder.encode(content) : content;
  const fd = open(path, flags, mode);
  try {
    do {
      const n = binding.syscall(SYS.write, fd, rest, rest.length);
      if (n === -errno.EINTR) continue;
      rest = rest.subarray(check(n, `write ${path}`));
    } while (rest.length > 0);
  } finally {
    close(fd);
  }
}

export function writeFileSync(path: string, content: string | Uint8Array, options: { mode?: number; flag?: "w" | "wx" } = {}): void {
  const how = options.flag === "wx" ? O_EXCL : O_TRUNC;
  writeAll(path, O_WRONLY | O_CREAT | how, options.mode ?? 0o666, content);
}

export function appendFileSync(path: string, content: string | Uint8Array): void {
  writeAll(path, O_WRONLY | O_CREAT | O_APPEND, 0o666, content);
}

/** write(2): the count. */
export function writeSync(fd: number, content: Uint8Array): number {
  return check(binding.syscall(SYS.write, fd, content, content.length), `write ${fd}`);
}

export function existsSync(path: string): boolean {
  return binding.syscall(SYS.access, path, 0) === 0;
}

export function mkdirSync(path: string, options: { recursive?: boolean; mode?: number } = {}): void {
  const mode = options.mode ?? 0o777;
  const made = binding.syscall(SYS.mkdir, path, mode);
  if (!options.recursive) check(made, `mkdir ${path}`);
  else if (made === -errno.ENOENT && path.lastIndexOf("/") > 0) {
    mkdirSync(path.slice(0, path.lastIndexOf("/")), options);
    mkdirSync(path, options);
  } else if (made !== -errno.EEXIST || !statSync(path, { throwIfNoEntry: false })?.isDirectory()) check(made, `mkdir ${path}`);
}

export function rmdirSync(path: string): void {
  check(binding.syscall(SYS.rmdir, path), `rmdir ${path}`);
}

export function unlinkSync(path: string): void {
  check(binding.syscall(SYS.unlink, path), `unlink ${path}`);
}

/** -1: it stays whose it is. */
export function chownSync(path: string, uid: number, gid: number): void {
  check(binding.syscall(SYS.chown, path, uid, gid), `chown ${path}`);
}

export function renameSync(from: string, to: string): void {
  check(binding.syscall(SYS.rename, from, to), `rename ${from} to ${to}`);
}

export function readlinkSync(path: string): string {
  const buffer = new Uint8Array(PATH_MAX);
  return decoder.decode(buffer.subarray(0, check(binding.syscall(SYS.readlink, path, buffer, PATH_MAX), `readlink ${path}`)));
}

export interface Status {
  mode: number;
  uid: number;
  gid: number;
  rdev: number;
  isDirectory(): boolean;
  isSymbolicLink(): boolean;
}

/** Of struct stat. */
function status(words: Uint32Array): Status {
  const mode = words[6]!;
  return {
    mode,
    uid: words[7]!,
    gid: words[8]!,
    rdev: words[10]! + words[11]! * 0x100000000,
    isDirectory: () => (mode & 0o170000) === 0o040000,
    isSymbolicLink: () => (mode & 0o170000) === 0o120000,
  };
}

function statusAt(fd: number, path: string, flags: number, quiet: boolean): Status | undefined {
  const words = new Uint32Array(36);
  const result = binding.syscall(SYS.newfstatat, fd, path, words.buffer as ArrayBuffer, flags);
  if (quiet && (result === -errno.ENOENT || result === -errno.ENOTDIR)) return undefined;
  check(result, `stat ${path || fd}`);
  return status(words);
}

export function statSync(path: string): Status;
export function statSync(path: string, options: { throwIfNoEntry: false }): Status | undefined;
export function statSync(path: string, options?: { throwIfNoEntry: false }): Status | undefined {
  return statusAt(AT_FDCWD, path, 0, options?.throwIfNoEntry === false);
}

export function lstatSync(path: string): Status {
  return statusAt(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, false)!;
}

export function fstatSync(fd: number): Status {
  const AT_EMPTY_PATH = 0x1000;
  return statusAt(fd, "", AT_EMPTY_PATH, false)!;
}

/** Which file an open descriptor is of, as long as that file is there. */
export interface FileIdentity {
  device: bigint;
  inode: bigint;
}

export function fileIdentity(fd: number): FileIdentity {
  const AT_EMPTY_PATH = 0x1000;
  const stat = new BigUint64Array(18);
  check(binding.syscall(SYS.newfstatat, fd, "", stat, AT_EMPTY_PATH), `stat ${fd}`);
  return { device: stat[0]!, inode: stat[1]! };
}

/** access(2) with W_OK. */
export function isWritable(path: string): boolean {
  return binding.syscall(SYS.access, path, 2) === 0;
}

/** access(2) with X_OK: also of a directory that may be searched. */
export function isExecutable(path: string): boolean {
  return binding.syscall(SYS.access, path, 1) === 0;
}

/** "6.1.0-18-cloud-amd64" */
export function kernelRelease(): string {
  release ??= readFileSync("/proc/sys/kernel/osrelease", "utf8").trim();
  return release;
}
let release: string | undefined;

/** Whether this process is in no user namespace but the machine's own. */
export function isInitialUserNamespace(): boolean {
  initial ??= readFileSync("/proc/self/uid_map", "utf8") === INITIAL_MAP;
  return initial;
}
let initial: boolean | undefined;

const DT_DIR = 4;

export function readdirSync(path: string): string[] {
  return entriesOf(path, () => true);
}

/** Names of the directories in it, in a file system that tells kinds. */
export function subdirectoriesOf(path: string): string[] {
  return entriesOf(path, (type) => type === DT_DIR);
}

/** struct linux_dirent64: ino u64, off s64, reclen u16, type u8, name. */
function entriesOf(path: string, wanted: (type: number) => boolean): string[] {
  const fd = open(path, O_DIRECTORY);
  const names: string[] = [];
  try {
    const buffer = new Uint8Array(CHUNK);
    for (;;) {
      const n = check(binding.syscall(SYS.getdents64, fd, buffer, buffer.length), `readdir ${path}`);
      if (n === 0) return names;
      for (let at = 0; at < n; at += buffer[at + 16]! + 256 * buffer[at + 17]!) {
        const name = decoder.decode(buffer.subarray(at + 19, buffer.indexOf(0, at + 19)));
        if (name !== "." && name !== ".." && wanted(buffer[at + 18]!)) names.push(name);
      }
    }
  } finally {
    close(fd);
  }
}

/** A file, or a directory with all that is in it; nothing where there is none. */
export function removeSync(path: string): void {
  const gone = binding.syscall(SYS.unlink, path);
  if (gone === 0 || gone === -errno.ENOENT) return;
  if (gone !== -errno.EISDIR) check(gone, `unlink ${path}`);
  for (const name of readdirSync(path)) removeSync(`${path}/${name}`);
  rmdirSync(path);
}
