// Removes a tree below an open directory without following anything out of it.
import { errno, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, SystemError } from "../../linux/index.ts";
import { closeFd, openAt, readDirectory, shown, unlinkAt } from "./kernel.ts";

const AT_REMOVEDIR = 0x200;
const DT_DIR = 4;

/** Removes `name` in the directory `parent`, and all below it; a missing one is no error. */
export function removeTree(parent: number, name: string): void {
  const direct = unlinkAt(parent, name);
  if (direct >= 0 || -direct === errno.ENOENT) return;
  const fd = openAt(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
  if (fd < 0) throw new SystemError(`remove ${shown(name)}`, -direct);
  try {
    for (const entry of readDirectory(fd)) {
      if (entry.type !== DT_DIR && unlinkAt(fd, entry.name) >= 0) continue;
      removeTree(fd, entry.name);
    }
  } finally {
    closeFd(fd);
  }
  const result = unlinkAt(parent, name, AT_REMOVEDIR);
  if (result < 0 && -result !== errno.ENOENT) throw new SystemError(`remove ${shown(name)}`, -result);
}
