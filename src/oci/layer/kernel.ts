// The few system calls that unpacking and packing need, without allocations: names are byte strings copied to a scratch buffer, results are
// numbers (-errno), never exceptions.
import { binding, SYS, SystemError } from "../../linux/index.ts";

const SCRATCH = 64 * 1024;
const scratch = Buffer.alloc(SCRATCH);
const base = binding.address(scratch);
const HALF = SCRATCH / 2;

/** A byte string as a C string in the scratch buffer; `second` uses the other half, for calls with two names. */
function cString(text: string, second = false): number {
  const at = second ? HALF : 0;
  // A name that is too long for the buffer is too long for the kernel as well: the empty one gives ENOENT.
  const n = text.length < HALF ? scratch.write(text, at, HALF - 1, "latin1") : 0;
  scratch[at + n] = 0;
  return base + at;
}

const how = new BigUint64Array(3);
const times = new Int32Array(8);

const AT_SYMLINK_NOFOLLOW = 0x100;
const O_CLOEXEC = 0o2000000;
const EAGAIN = 11;
const EINTR = 4;
const SYS_getdents64 = 217;

export function openIn(dirfd: number, path: string, flags: number, resolve: number): number {
  how[0] = BigInt(flags | O_CLOEXEC);
  how[1] = 0n;
  how[2] = BigInt(resolve);
  for (let tries = 0; ; tries++) {
    const fd = binding.syscall(SYS.openat2, dirfd, cString(path), how, 24);
    if (fd !== -EAGAIN || tries > 100) return fd;
  }
}
export const openAt = (dirfd: number, name: string, flags: number, mode: number): number =>
  binding.syscall(SYS.openat, dirfd, cString(name), flags | O_CLOEXEC, mode);
export const mkdirAt = (dirfd: number, name: string, mode: number): number => binding.syscall(SYS.mkdirat, dirfd, cString(name), mode);
export const mknodAt = (dirfd: number, name: string, mode: number, dev: number): number =>
  binding.syscall(SYS.mknodat, dirfd, cString(name), mode, dev);
export const unlinkAt = (dirfd: number, name: string, flags = 0): number => binding.syscall(SYS.unlinkat, dirfd, cString(name), flags);
export const linkAt = (fromDir: number, from: string, toDir: number, to: string): number =>
  binding.syscall(SYS.linkat, fromDir, cString(from), toDir, cString(to, true), 0);
export const symlinkAt = (target: string, dirfd: number, name: string): number =>
  binding.syscall(SYS.symlinkat, cString(target), dirfd, cString(name, true));
export const chownAt = (dirfd: number, name: string, uid: number, gid: number): number =>
  binding.syscall(SYS.fchownat, dirfd, cString(name), uid, gid, AT_SYMLINK_NOFOLLOW);
export const fchown = (fd: number, uid: number, gid: number): number => binding.syscall(SYS.fchown, fd, uid, gid);
export const fchmod = (fd: number, mode: number): number => binding.syscall(SYS.fchmod, fd, mode);
export const closeFd = (fd: number): number => binding.syscall(SYS.close, fd);

function setTimes(sec: number, nsec: number): void {
  const high = Math.floor(sec / 2 ** 32);
  times[0] = times[4] = sec | 0;
  if (sec > 0x7fffffff || sec < -0x80000000) times[0] = times[4] = Number(BigInt.asIntN(32, BigInt(sec)));
  times[1] = times[5] = high;
  times[2] = times[6] = nsec;
  times[3] = times[7] = 0;
}

/** Sets access and modification time of what is open. */
export function timesOf(fd: number, sec: number, nsec: number): number {
  setTimes(sec, nsec);
  return binding.syscall(SYS.utimensat, fd, null, times, 0);
}
export function timesAt(dirfd: number, name: string, sec: number, nsec: number): number {
  setTimes(sec, nsec);
  return binding.syscall(SYS.utimensat, dirfd, cString(name), times, AT_SYMLINK_NOFOLLOW);
}

/** Writes all; -errno where it fails. */
export function writeAll(fd: number, buffer: Uint8Array, offset: number, length: number): number {
  const address = binding.address(buffer) + offset;
  let done = 0;
  while (done < length) {
    const n = binding.syscall(SYS.write, fd, address + done, length - done);
    if (n === -EINTR) continue;
    if (n < 0) return n;
    done += n;
  }
  return done;
}

/** Leaves a hole of so many bytes behind what was written; -errno. */
export const skip = (fd: number, length: number): number => binding.syscall(SYS.lseek, fd, length, 1);
/** Makes the file so long; -errno. */
export const setSize = (fd: number, size: number): number => binding.syscall(SYS.ftruncate, fd, size);

/** Sets an extended attribute of what is open. */
export function setXattr(fd: number, name: string, value: string): number {
  const bytes = Buffer.from(value, "latin1");
  return binding.syscall(SYS.fsetxattr, fd, cString(name), bytes, bytes.length, 0);
}
/** The same for a name in a directory, not following a symbolic link. */
export function setXattrAt(dirfd: number, file: string, name: string, value: string): number {
  const bytes = Buffer.from(value, "latin1");
  return binding.syscall(SYS.lsetxattr, cString(`/proc/self/fd/${dirfd}/${file}`), cString(name, true), bytes, bytes.length, 0);
}

const listed = Buffer.alloc(64 * 1024);
const held = Buffer.alloc(64 * 1024);

/** Gives what is open as `to` the extended attributes of `from`, but for overlayfs' own; what the file system does not take is left out. */
export function copyXattrs(from: number, to: number): void {
  const length = binding.syscall(SYS.flistxattr, from, listed, listed.length);
  if (length <= 0) return;
  for (const name of listed.toString("latin1", 0, length).split("\0")) {
    if (name === "" || /^(trusted|user)\.overlay\./.test(name)) continue;
    const n = binding.syscall(SYS.fgetxattr, from, cString(name), held, held.length);
    if (n >= 0) binding.syscall(SYS.fsetxattr, to, cString(name), held, n, 0);
  }
}

/** Target of a symbolic link in a directory ("" for one that is open itself); "" where it is none. */
export function readLink(dirfd: number, name: string): string {
  const buffer = Buffer.alloc(4096);
  const n = binding.syscall(SYS.readlinkat, dirfd, cString(name), buffer, buffer.length);
  return n > 0 ? buffer.toString("latin1", 0, n) : "";
}

export interface DirEntry {
  name: string;
  /** DT_DIR 4, DT_REG 8, DT_LNK 10, DT_CHR 2, DT_BLK 6, DT_FIFO 1, DT_SOCK 12. */
  type: number;
}

/** Names in an open directory, without "." and "..", in the order of the file system. */
export function readDirectory(fd: number): DirEntry[] {
  const buffer = Buffer.alloc(64 * 1024);
  const out: DirEntry[] = [];
  for (;;) {
    const n = binding.syscall(SYS_getdents64, fd, buffer, buffer.length);
    if (n < 0) throw new SystemError("getdents64", -n);
    if (n === 0) return out;
    for (let at = 0; at < n; ) {
      const length = buffer.readUInt16LE(at + 16);
      const end = buffer.indexOf(0, at + 19);
      const name = buffer.toString("latin1", at + 19, end);
      if (name !== "." && name !== "..") out.push({ name, type: buffer[at + 18]! });
      at += length;
    }
  }
}

/** A name for messages: the bytes read as UTF-8. */
export function shown(name: string): string {
  return Buffer.from(name, "latin1").toString("utf8");
}

export interface Stat {
  mode: number;
  uid: number;
  gid: number;
  size: number;
  nlink: number;
  ino: bigint;
  dev: bigint;
  rdev: bigint;
  mtimeSec: number;
  mtimeNsec: number;
  /** Of the last change of anything, in nanoseconds; nobody can set it. */
  ctime: bigint;
}

const stat = Buffer.alloc(144);

function parseStat(): Stat {
  return {
    dev: stat.readBigUInt64LE(0),
    ino: stat.readBigUInt64LE(8),
    nlink: Number(stat.readBigUInt64LE(16)),
    mode: stat.readUInt32LE(24),
    uid: stat.readUInt32LE(28),
    gid: stat.readUInt32LE(32),
    rdev: stat.readBigUInt64LE(40),
    size: Number(stat.readBigInt64LE(48)),
    mtimeSec: Number(stat.readBigInt64LE(88)),
    mtimeNsec: Number(stat.readBigInt64LE(96)),
    ctime: stat.readBigInt64LE(104) * 1_000_000_000n + stat.readBigInt64LE(112),
  };
}

/** fstat(2). Throws SystemError. */
export function statOf(fd: number): Stat {
  const result = binding.syscall(SYS.fstat, fd, stat);
  if (result < 0) throw new SystemError("fstat", -result);
  return parseStat();
}

/** lstat(2) of a name in a directory. Throws SystemError. */
export function statAt(dirfd: number, name: string): Stat {
  const result = binding.syscall(SYS.newfstatat, dirfd, cString(name), stat, AT_SYMLINK_NOFOLLOW);
  if (result < 0) throw new SystemError(`stat ${shown(name)}`, -result);
  return parseStat();
}

/** The directory descriptor with its position at the beginning again. */
export function rewound(fd: number): number {
  binding.syscall(SYS.lseek, fd, 0, 0);
  return fd;
}
