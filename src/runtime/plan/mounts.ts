// The entries of config.json's `mounts`, each put at its place, which is opened below the root by openat2.
import { dirname, resolve } from "../../lib/paths.ts";
import { SYS, utf8 } from "../../linux/index.ts";
import type { Block, Word } from "../tape.ts";
import { AT_FDCWD, MOUNT_ATTR, O } from "./constants.ts";
import { planCopyUp } from "./copyup.ts";
import { attach, cloneTree, newFileSystem, planReadonlyMount, setAttributes } from "./detached-mounts.ts";
import { planProcCheck, S_IFDIR, S_IFMT } from "./file-checks.ts";
import { askForIdmap, planIdmap } from "./idmap.ts";
import { cloneShared, type PlannedMount } from "./mount-sources.ts";
import type { Planner } from "./planner.ts";

const freshTypes = new Set(["tmpfs", "proc", "sysfs", "devpts", "mqueue"]);
const kernelFileSystems = new Set(["proc", "sysfs"]);

/** Mounts one entry of config.json's `mounts` below `root`; writable where it is `filledLater`. */
export function planMount(p: Planner, planned: PlannedMount, root: Word, filledLater = false): void {
  const { mount, options } = planned;
  const { tape } = p;
  const to = tape.word("place");
  const type = mount.type ?? "none";
  if (planned.inside !== undefined) {
    planMountInside(p, planned, planned.inside, root);
    return;
  }
  const bind = planned.source !== undefined || planned.path !== undefined;
  const why = bind ? `bind ${mount.source} on ${mount.destination}` : `mount ${type} on ${mount.destination}`;
  let fd = planned.source;
  if (planned.path !== undefined) {
    fd = tape.word("mount");
    if (planned.host) cloneShared(p, planned.host, planned.path, options, fd, why);
    else cloneTree(p, AT_FDCWD, planned.path, options, fd, why, true);
  } else if (!fd) {
    fd = tape.word("mount");
    const data = options.data;
    const source = mount.source ?? type;
    // As runc: a tmpfs has the mode of the directory that it covers.
    const bare = type === "tmpfs" && !planned.copy && !data.some(([key]) => key === "mode");
    const inherited = bare && !p.fresh.some((place) => mount.destination.startsWith(place));
    const mode = inherited ? planModeText(p, root, mount.destination, why) : undefined;
    const attr = filledLater || planned.copy ? options.set & ~MOUNT_ATTR.MOUNT_ATTR_RDONLY : options.set;
    // The read-only flag goes to the mount, never to the super block, which proc, sysfs and mqueue share.
    newFileSystem(p, type, source, mode ? [...data, ["mode", mode]] : data, attr, fd, why);
    const propagation = options.propagation;
    if (propagation) setAttributes(p, fd, 0, 0, propagation, options.propagationRecursive);
  }
  p.ensure(root, mount.destination, planned.kind, to, why, kernelFileSystems.has(type) ? { noSymlinks: true } : {});
  // A file system on top of proc would be asked and told what only the kernel should be (CVE-2019-16884, CVE-2025-52881).
  if (type !== "proc" && !coverable.has(mount.destination)) planProcCheck(p, to, false, `${why}: it is inside /proc`);
  if (planned.copy) {
    planCopyUp(p, planned.copy, to, fd, mount.destination);
    if (options.set & MOUNT_ATTR.MOUNT_ATTR_RDONLY && !filledLater) planReadonlyMount(p, fd, why);
  }
  attach(p, fd, to);
  if (!bind && !planned.copy && freshTypes.has(type)) p.fresh.push(`${mount.destination}/`);
  p.close(to);
  p.close(fd);
}

/** Binds what earlier mounts have put at `source` below the root, and looks for it nowhere else: links of the image lead out of it nowhere. */
function planMountInside(p: Planner, { mount, options, mapping, asks }: PlannedMount, source: string, root: Word): void {
  const { tape } = p;
  const why = `bind ${mount.source} on ${mount.destination}`;
  const [from, fd, parent, to] = [tape.word("source"), tape.word("mount"), tape.word("parent"), tape.word("place")];
  const file = tape.label();
  const ready = tape.label();
  p.openInRoot(root, source, O.O_PATH, from, { why });
  cloneTree(p, from, "", options, fd, why);
  if (mapping) (asks ? askForIdmap : planIdmap)(p, fd, mapping, options.idmap === "ridmap", `map the ids of ${mount.destination}`);
  const place = resolve(`/${mount.destination}`);
  // What is made for both kinds, before one of them is.
  p.ensure(root, dirname(place), "directory", parent, why);
  p.close(parent);
  const stat = tape.room(144, "stat");
  const type = tape.word("type");
  tape.step(SYS.fstat, [from, stat]);
  p.close(from);
  tape.compute("AND", tape.wordAt(stat, 24, 4, "stat.st_mode"), S_IFMT, type);
  tape.when(type, "NE", S_IFDIR, file);
  p.ensure(root, place, "directory", to, why);
  tape.jump(ready);
  tape.place(file);
  p.ensure(root, place, "file", to, why);
  tape.place(ready);
  if (!coverable.has(place)) planProcCheck(p, to, false, `${why}: it is inside /proc`);
  attach(p, fd, to);
  for (const each of [to, fd]) p.close(each);
}

/** The mode of what is at `path`, in octal digits; tmpfs' own default where nothing is. */
function planModeText(p: Planner, root: Word, path: string, why: string): Block {
  const { tape } = p;
  const text = tape.bytes(utf8("1777\0\0\0\0"), "mode");
  const absent = tape.label();
  const place = tape.word("place");
  const stat = tape.room(144, "stat");
  const digit = tape.word("digit");
  const digits = tape.word("digits");
  p.openInRoot(root, path, O.O_PATH, place, { why, jump: { to: absent } });
  tape.step(SYS.fstat, [place, stat]);
  p.close(place);
  tape.compute("ADD", 0x30303030, 0, digits);
  [9, 6, 3, 0].forEach((shift, i) => {
    tape.compute("SHR", tape.wordAt(stat, 24, 4, "stat.st_mode"), shift, digit);
    tape.compute("AND", digit, 7, digit);
    tape.compute("SHL", digit, 8 * i, digit);
    tape.compute("ADD", digits, digit, digits);
  });
  tape.compute("ADD", digits, 0, tape.wordAt(text, 0, 4, "mode"));
  tape.place(absent);
  return text;
}

/** What of procfs may be covered: numbers that people read, by files of lxcfs and the like; the list is runc's. */
const coverable = new Set(
  [
    ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo"],
    ["net/dev", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"],
  ]
    .flat()
    .map((name) => `/proc/${name}`),
);
