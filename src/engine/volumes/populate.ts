// The image's files at a volume's destination, copied into the volume while it is empty: owners, modes, times, extended attributes and hard
// links kept. Both sides are walked by descriptors; a link in the image leads nowhere outside it.
import { readdirSync } from "node:fs";
import { close, errno, O_DIRECTORY, O_RDONLY, openat2, RESOLVE_IN_ROOT, SystemError } from "../../linux/index.ts";
import type { ContainerRecord, Engine } from "../context.ts";
import { copyTree } from "./copy.ts";

export async function populateVolume(engine: Engine, record: ContainerRecord, destination: string, dir: string): Promise<void> {
  if (readdirSync(dir).length > 0) return;
  const root = await engine.containers.openRoot(record.id);
  try {
    let from: number;
    try {
      from = openat2(root.fd, destination, O_RDONLY | O_DIRECTORY, { resolve: RESOLVE_IN_ROOT });
    } catch (error) {
      if (error instanceof SystemError && [errno.ENOENT, errno.ENOTDIR, errno.ELOOP].includes(error.errno as 2)) return;
      throw error;
    }
    try {
      await copyTree(from, dir);
    } finally {
      close(from);
    }
  } finally {
    await root.close();
  }
}
