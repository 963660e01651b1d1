// Writing what comes from outside without filling the disk: something always stays free, so that whoever keeps a database there can go on.
import { statfsSync } from "node:fs";
import { resourceExhausted } from "./errors.ts";

/** Of a file system a twentieth stays free, at most 1 GiB. */
const RESERVED = 20;
const MAX_RESERVE = 2 ** 30;
/** Bytes after which the file system is asked again: others write as well. */
const LOOK = 64 << 20;

function spareBytes(path: string): number {
  const { bsize, blocks, bavail } = statfsSync(path);
  return Math.max(0, Math.floor(bsize * bavail - Math.min(MAX_RESERVE, (bsize * blocks) / RESERVED)));
}

/** For the file system that holds `path`: to be called with each number of bytes before they are written there. ResourceExhausted where there is no room for them. */
export function createRoom(path: string): (bytes: number) => void {
  let spare = 0;
  let taken = 0;
  return (bytes) => {
    if (taken + bytes > spare || taken > LOOK) {
      spare = spareBytes(path);
      taken = 0;
    }
    taken += bytes;
    if (taken > spare) throw resourceExhausted(`no space left on device: ${bytes} bytes to write, ${spare} to spare`);
  };
}
