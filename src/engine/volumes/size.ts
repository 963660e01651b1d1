// How much a directory holds, the sizes of its files, each inode once, as dockerd counts.
import { lstat, opendir } from "node:fs/promises";

/** Bytes below `path`; 0 where it is not there. Off the event loop, one directory at a time. */
export async function directorySize(path: string): Promise<number> {
  const seen = new Set<string>();
  const pending = [path];
  let total = 0;
  for (let dir = pending.pop(); dir !== undefined; dir = pending.pop()) {
    const entries = await opendir(dir).catch(() => undefined);
    if (!entries) continue;
    for await (const entry of entries) {
      const name = `${dir}/${entry.name}`;
      const info = await lstat(name).catch(() => undefined);
      if (!info) continue;
      if (info.isDirectory()) pending.push(name);
      if (info.nlink > 1 && !info.isDirectory()) {
        const key = `${info.dev}:${info.ino}`;
        if (seen.has(key)) continue;
        seen.add(key);
      }
      if (!info.isDirectory()) total += info.size;
    }
  }
  return total;
}
