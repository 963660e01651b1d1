// Option tmpcopyup: a tmpfs begins with a copy of what lies beneath it. What is there was listed when the plan was made; each entry is opened below
// the place itself, without links, so that a tree that changes meanwhile gives an error and never a file of the host.
import { SYS } from "../../linux/index.ts";
import type { Word } from "../tape.ts";
import { AT, flags, named, O, S } from "./constants.ts";
import type { Planner } from "./planner.ts";

/** What lstat(2) says of a file; `path` is relative to the place, "" the place itself; parents come before children. */
export interface Entry {
  path: string;
  mode: number;
  uid: number;
  gid: number;
  rdev: number;
  /** Of a symbolic link. */
  target?: string;
}

const CHUNK = 0x7ffff000;

export function planCopyUp(p: Planner, entries: readonly Entry[], from: Word, to: Word, destination: string): void {
  const { tape } = p;
  const source = tape.word("from");
  const copy = tape.word("to");
  const count = tape.word("count");
  for (const { path, mode, uid, gid, rdev, target } of entries) {
    const why = `copy ${destination}/${path} up`;
    const type = mode & S.S_IFMT;
    if (target !== undefined) tape.step(SYS.symlinkat, [target, to, path], { why });
    else if (type === S.S_IFDIR) {
      if (path) tape.step(SYS.mkdirat, [to, path, 0o700], { why });
    } else if (type === S.S_IFREG) {
      p.openInRoot(from, path, O.O_NONBLOCK, source, { why, noSymlinks: true });
      tape.step(SYS.openat, [to, path, named(O, O.O_WRONLY | O.O_CREAT | O.O_EXCL | O.O_CLOEXEC), 0o600], { store: copy });
      const more = tape.label();
      tape.place(more);
      tape.step(SYS.sendfile, [copy, source, 0, CHUNK], { store: count });
      tape.when(count, "NE", 0, more);
      p.close(copy);
      p.close(source);
    } else tape.step(SYS.mknodat, [to, path, mode, rdev], { why });
    const name = path || ".";
    tape.step(SYS.fchownat, [to, name, uid, gid, flags(AT, "AT_SYMLINK_NOFOLLOW")], { why });
    // After the change of owner, which takes set-id bits away.
    if (target === undefined) tape.step(SYS.fchmodat, [to, name, { value: mode & 0o7777, name: `0${(mode & 0o7777).toString(8)}` }]);
  }
}
