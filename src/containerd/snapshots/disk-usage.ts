// Bytes and inodes of a tree, as `du` counts them: blocks, hard links once. It yields to the event loop between directories.
import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Usage } from "./snapshotter.ts";

export async function diskUsage(root: string): Promise<Usage> {
  let size = 0;
  let inodes = 0;
  const linked = new Set<string>();
  const count = async (path: string): Promise<boolean> => {
    // files may vanish while a container writes
    const stat = await lstat(path).catch(() => undefined);
    if (!stat) return false;
    if (stat.nlink > 1 && !stat.isDirectory()) {
      const identity = `${stat.dev}:${stat.ino}`;
      if (linked.has(identity)) return false;
      linked.add(identity);
    }
    size += stat.blocks * 512;
    inodes++;
    return stat.isDirectory();
  };
  const queue = [root];
  await count(root);
  while (queue.length > 0) {
    const directory = queue.pop()!;
    const names = await readdir(directory).catch(() => [] as string[]);
    for (let i = 0; i < names.length; i += 64) {
      await Promise.all(
        names.slice(i, i + 64).map(async (name) => {
          const path = join(directory, name);
          if (await count(path)) queue.push(path);
        }),
      );
    }
  }
  return { size, inodes };
}
