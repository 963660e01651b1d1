// Paths of the kernel's file systems that a container does not see, or does not write to (config-linux.md, "Masked Paths" and "Readonly Paths").
import { errno, SYS } from "../../linux/index.ts";
import type { Block, Word } from "../tape.ts";
import { flags, MOUNT_ATTR, O, OPEN_TREE } from "./constants.ts";
import { attach, EMPTY_PATH, newFileSystem } from "./detached-mounts.ts";
import { planNullCheck, S_IFDIR, S_IFMT } from "./file-checks.ts";
import type { Planner } from "./planner.ts";

const COPY = flags(OPEN_TREE, "OPEN_TREE_CLONE", "OPEN_TREE_CLOEXEC", "AT_EMPTY_PATH");
const COPY_RECURSIVE = flags(OPEN_TREE, "OPEN_TREE_CLONE", "OPEN_TREE_CLOEXEC", "AT_EMPTY_PATH", "AT_RECURSIVE");
const ABSENT = [errno.ENOENT, errno.ENOTDIR];

/** Covers paths: a directory by an empty read-only file system, anything else by /dev/null; what does not exist is left alone. */
export function planMasked(p: Planner, paths: readonly string[], root: Word): void {
  if (paths.length === 0) return;
  const { tape } = p;
  const empty = tape.word("empty");
  const attached = tape.word("attached");
  const nothing = tape.word("null");
  const place = tape.word("place");
  const copy = tape.word("copy");
  newFileSystem(p, "tmpfs", "tmpfs", [["nr_inodes", "2"]], MOUNT_ATTR.MOUNT_ATTR_RDONLY, empty, "make an empty directory for masked paths");
  p.openInRoot(root, "/dev/null", O.O_PATH, nothing, { why: "open /dev/null for masked paths", noSymlinks: true });
  // The image's own, or one that was exchanged, would be shown instead (CVE-2025-31133).
  const real = tape.label();
  const isNull = "see that /dev/null is the null device";
  planNullCheck(p, nothing, isNull, real);
  tape.fail(errno.ENODEV, isNull);
  tape.place(real);
  const stat = tape.room(144, "stat");
  const type = tape.word("type");
  for (const path of new Set(paths)) {
    const next = tape.label();
    const notDirectory = tape.label();
    const further = tape.label();
    const covered = tape.label();
    const put = tape.label();
    p.openInRoot(root, path, O.O_PATH, place, { why: `mask ${path}`, jump: { to: next, on: ABSENT } });
    tape.step(SYS.fstat, [place, stat]);
    tape.compute("AND", tape.wordAt(stat, 24, 4, "stat.st_mode"), S_IFMT, type);
    tape.when(type, "NE", S_IFDIR, notDirectory);
    // The first directory gets the mount itself, others a copy of it: before Linux 6.15 what is attached nowhere can't be copied, and a mount
    // that ends unattached makes its last closer wait for an RCU grace period.
    tape.when(attached, "NE", 0, further);
    attach(p, empty, place);
    tape.compute("ADD", 1, 0, attached);
    tape.jump(covered);
    tape.place(further);
    tape.step(SYS.open_tree, [empty, "", COPY], { store: copy });
    tape.jump(put);
    tape.place(notDirectory);
    tape.step(SYS.open_tree, [nothing, "", COPY], { store: copy });
    tape.place(put);
    attach(p, copy, place);
    p.close(copy);
    tape.place(covered);
    p.close(place);
    tape.place(next);
  }
  p.close(empty);
  p.close(nothing);
}

/** Makes paths read-only, by a read-only copy of each on top of itself. */
export function planReadonly(p: Planner, paths: readonly string[], root: Word): void {
  const { tape } = p;
  const place = tape.word("place");
  const copy = tape.word("copy");
  const attr: Block = tape.structure([MOUNT_ATTR.MOUNT_ATTR_RDONLY, 0, 0, 0], "{MOUNT_ATTR_RDONLY}");
  for (const path of paths) {
    const next = tape.label();
    p.openInRoot(root, path, O.O_PATH, place, { why: `make ${path} read-only`, jump: { to: next, on: ABSENT } });
    tape.step(SYS.open_tree, [place, "", COPY_RECURSIVE], { store: copy });
    tape.step(SYS.mount_setattr, [copy, "", EMPTY_PATH, attr, 32]);
    attach(p, copy, place);
    p.close(copy);
    p.close(place);
    tape.place(next);
  }
}
