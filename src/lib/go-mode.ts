// File modes as fsutil's messages have them: those of Go, where the kind of file is in other bits than the kernel's.
import { constants } from "node:fs";

const KINDS: [go: number, kernel: number][] = [
  [0x8000_0000, constants.S_IFDIR],
  [0x0800_0000, constants.S_IFLNK],
  [0x0420_0000, constants.S_IFCHR],
  [0x0400_0000, constants.S_IFBLK],
  [0x0200_0000, constants.S_IFIFO],
  [0x0100_0000, constants.S_IFSOCK],
];
const BITS: [go: number, kernel: number][] = [
  [0x0080_0000, 0o4000],
  [0x0040_0000, 0o2000],
  [0x0010_0000, 0o1000],
];
const KIND_MASK = 0x8f28_0000;

export function toGoMode(mode: number): number {
  const kind = KINDS.find(([, kernel]) => (mode & constants.S_IFMT) === kernel)?.[0] ?? 0;
  return BITS.reduce((sum, [go, kernel]) => (mode & kernel ? sum | go : sum), (kind | (mode & 0o777)) >>> 0) >>> 0;
}

/** The kernel's kind of file; undefined for one that there is none of here. */
export function kindOf(mode: number): number | undefined {
  const kind = (mode & KIND_MASK) >>> 0;
  return kind === 0 ? constants.S_IFREG : KINDS.find(([go]) => go === kind)?.[1];
}

/** The permissions, with set-id and sticky bits. */
export function permissionsOf(mode: number): number {
  return BITS.reduce((sum, [go, kernel]) => (mode & go ? sum | kernel : sum), mode & 0o777);
}

/** The kernel's mode; undefined for a kind of file that there is none of here. */
export function fromGoMode(mode: number): number | undefined {
  const kind = kindOf(mode);
  return kind === undefined ? undefined : kind | permissionsOf(mode);
}
