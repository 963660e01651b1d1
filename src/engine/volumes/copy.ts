// A tree copied by descriptors, with everything that belongs to its files. The source is hostile (an image): no path of it is ever resolved by name
// across more than one component, and no link is followed.
import { lstatSync, readdirSync, readlinkSync } from "node:fs";
import { breather } from "../../lib/breather.ts";
import {
  AT_FDCWD,
  AT_SYMLINK_NOFOLLOW,
  binding,
  check,
  close,
  copyApart,
  errno,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_RDONLY,
  O_WRONLY,
  open,
  openat2,
  RESOLVE_BENEATH,
  RESOLVE_NO_SYMLINKS,
  SYS,
} from "../../linux/index.ts";

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFLNK = 0o120000;
const S_IFREG = 0o100000;
const ONE_STEP = { resolve: RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };

interface Copying {
  /** "dev:ino" of a source file with several names → the copy's descriptor-independent path. */
  seen: Map<string, string>;
  breathe: () => Promise<void> | undefined;
}

const self = (fd: number) => `/proc/self/fd/${fd}`;

function copyAttributes(from: string, to: string): void {
  const names = new Uint8Array(64 * 1024);
  const length = binding.syscall(SYS.llistxattr, from, names, names.length);
  if (length <= 0) return;
  const value = new Uint8Array(64 * 1024);
  for (const name of Buffer.from(names.buffer, 0, length).toString().split("\0")) {
    // The overlay's own marks are not the image's.
    if (name === "" || name.startsWith("trusted.overlay.")) continue;
    const n = binding.syscall(SYS.lgetxattr, from, name, value, value.length);
    if (n < 0) continue;
    const result = binding.syscall(SYS.lsetxattr, to, name, value, n, 0);
    if (result !== -errno.EOPNOTSUPP) check(result, `setxattr ${name}`);
  }
}

/** Owner, mode, extended attributes and times of `from` (both in directories open as descriptors). */
function copyMeta(from: string, to: string, info: import("node:fs").BigIntStats): void {
  check(binding.syscall(SYS.fchownat, AT_FDCWD, to, Number(info.uid), Number(info.gid), AT_SYMLINK_NOFOLLOW), `chown ${to}`);
  const kind = Number(info.mode) & S_IFMT;
  if (kind !== S_IFLNK) check(binding.syscall(SYS.fchmodat, AT_FDCWD, to, Number(info.mode) & 0o7777), `chmod ${to}`);
  copyAttributes(from, to);
  const times = new BigUint64Array([
    info.atimeNs / 1_000_000_000n,
    info.atimeNs % 1_000_000_000n,
    info.mtimeNs / 1_000_000_000n,
    info.mtimeNs % 1_000_000_000n,
  ]);
  check(binding.syscall(SYS.utimensat, AT_FDCWD, to, times, AT_SYMLINK_NOFOLLOW), `utimens ${to}`);
}

async function copyEntry(from: number, to: number, name: string, copying: Copying): Promise<void> {
  const source = `${self(from)}/${name}`;
  const target = `${self(to)}/${name}`;
  const info = lstatSync(source, { bigint: true });
  const kind = Number(info.mode) & S_IFMT;
  const key = `${info.dev}:${info.ino}`;
  if (kind !== S_IFDIR && info.nlink > 1n) {
    const other = copying.seen.get(key);
    if (other !== undefined) {
      check(binding.syscall(SYS.linkat, AT_FDCWD, other, AT_FDCWD, target, 0), `link ${name}`);
      return;
    }
    copying.seen.set(key, `${readlinkSync(self(to))}/${name}`);
  }
  if (kind === S_IFDIR) {
    check(binding.syscall(SYS.mkdirat, to, name, 0o700), `mkdir ${name}`);
    const [a, b] = [
      openat2(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, ONE_STEP),
      openat2(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, ONE_STEP),
    ];
    try {
      await copyEntries(a, b, copying);
    } finally {
      close(a);
      close(b);
    }
  } else if (kind === S_IFREG) {
    const a = openat2(from, name, O_RDONLY | O_NOFOLLOW, ONE_STEP);
    try {
      const b = openat2(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, { mode: 0o600, ...ONE_STEP });
      try {
        await copyApart(a, b, name);
      } finally {
        close(b);
      }
    } finally {
      close(a);
    }
  } else if (kind === S_IFLNK) {
    check(binding.syscall(SYS.symlinkat, readlinkSync(source), to, name), `symlink ${name}`);
  } else {
    check(binding.syscall(SYS.mknodat, to, name, Number(info.mode), Number(info.rdev)), `mknod ${name}`);
  }
  copyMeta(source, target, info);
}

async function copyEntries(from: number, to: number, copying: Copying): Promise<void> {
  for (const name of readdirSync(self(from))) {
    await copyEntry(from, to, name, copying);
    await copying.breathe();
  }
}

/** Copies what is in the directory `from` into the empty directory `to`, which gets the owner and mode of `from` too. */
export async function copyTree(from: number, to: string): Promise<void> {
  const target = open(to, O_RDONLY | O_DIRECTORY);
  try {
    await copyEntries(from, target, { seen: new Map(), breathe: breather() });
    copyMeta(`${self(from)}/.`, `${self(target)}/.`, lstatSync(`${self(from)}/.`, { bigint: true }));
  } finally {
    close(target);
  }
}
