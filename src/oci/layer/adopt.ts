// Directories that a layer needs but does not name look as they do below it: where the layers below were not there yet when it was unpacked.
import { close, O_DIRECTORY, O_RDONLY, open, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS } from "../../linux/index.ts";
import * as kernel from "./kernel.ts";

const DIRECTORY = O_RDONLY | O_DIRECTORY;
const IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;

/** Gives directories below `root` the mode, owner, attributes and times that they have in the layers below (directories, topmost first), where they have any. */
export function adoptParents(root: string, parents: readonly string[], implied: readonly string[]): void {
  const to = open(root, DIRECTORY);
  const lower = parents.map((path) => open(path, DIRECTORY));
  try {
    for (const path of implied) {
      for (const top of lower) {
        const from = kernel.openIn(top, path, DIRECTORY, IN_ROOT);
        if (from < 0) continue;
        const fd = kernel.openIn(to, path, DIRECTORY, IN_ROOT);
        if (fd >= 0) {
          const stat = kernel.statOf(from);
          kernel.fchown(fd, stat.uid, stat.gid);
          kernel.fchmod(fd, stat.mode & 0o7777);
          kernel.copyXattrs(from, fd);
          kernel.timesOf(fd, stat.mtimeSec, stat.mtimeNsec);
          kernel.closeFd(fd);
        }
        kernel.closeFd(from);
        break;
      }
    }
  } finally {
    close(to);
    for (const fd of lower) close(fd);
  }
}
