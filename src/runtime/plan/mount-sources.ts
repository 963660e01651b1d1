// What config.json's mounts show: which copies of the host's paths are made before there is a process, and which by the process in its turn.
import { invalidArgument } from "../../lib/errors.ts";
import { errno, SYS } from "../../linux/index.ts";
import type { IdMapping, Mount } from "../../oci/runtime-spec.ts";
import type { Word } from "../tape.ts";
import { AT_FDCWD, CLONE, flags, MS, O } from "./constants.ts";
import type { Entry } from "./copyup.ts";
import { cloneTree } from "./detached-mounts.ts";
import { planIdmap, planMapping } from "./idmap.ts";
import { bindAttributes, changedFlags, type MountOptions, parseOptions, ST_TIMES } from "./mount-options.ts";
import type { Planner } from "./planner.ts";
import { directoryName, insideRoot } from "./root-path.ts";

const labelled = new Set(["tmpfs", "devpts", "overlay"]);

/** The mount namespace of the one who makes the container, and his root in it. */
export interface HostMounts {
  namespace: Word;
  root: Word;
}

export interface PlannedMount {
  mount: Mount;
  options: MountOptions;
  /** Of a bind: the detached copy of its source. */
  source?: Word;
  /** Of a bind: its source, of which the process itself makes the copy when its turn comes. */
  path?: string;
  /** Of such a bind that is shared with the host: where the copy is to be made. */
  host?: HostMounts;
  /** Of a bind: its source below the root, which an earlier mount makes or changes. */
  inside?: string;
  /** Of such a bind: the user namespace that maps its ids. */
  mapping?: Word;
  /** Only who has rights over its file system maps a mount's ids, and in a user namespace nobody has: the process asks its maker. */
  asks?: boolean;
  /** What a bind's source is, as far as that can be known before. */
  kind: "directory" | "file";
  /** Of a tmpfs: what it begins with. */
  copy?: Entry[];
}

/**
 * Copies the sources of binds while the host's paths can still be walked with the host's rights. `ownMounts`: the process has these rights and a
 * mount namespace of its own, and will make the copies itself, each in its turn, as mount tables list mounts by age; `visits`: it may enter
 * another one as well. What is to be shared with the host is copied in the host's: in its own it would be a peer of its likes there only.
 */
export function planSources(
  p: Planner,
  mounts: readonly Mount[],
  kindOf: (path: string) => "directory" | "file",
  bundle: string,
  /** The container's own, for mounts that ask for a mapping and name none. */
  ownIds: { uids: IdMapping[]; gids: IdMapping[] },
  /** What lies below a place of the root file system. */
  entriesOf: (destination: string) => Entry[],
  ownMounts: boolean,
  /** SELinux' context of files that have none of their own. */
  mountLabel: string | undefined,
  /** The container has a user namespace. */
  inUser: boolean,
  /** The root file system's path on the host, where the container has mounts of its own. */
  rootPlace: string | undefined,
  visits: boolean,
): PlannedMount[] {
  let host: HostMounts | undefined;
  return mounts.map((mount, index) => {
    let options = parseOptions(mount.options ?? []);
    if (options.copyUp && mount.type !== "tmpfs") throw invalidArgument(`option tmpcopyup is for tmpfs: ${mount.destination}`);
    const mapped = options.idmap || mount.uidMappings?.length || mount.gidMappings?.length;
    if (!options.bind && mount.type !== "bind") {
      if (mapped) throw invalidArgument(`the mount on ${mount.destination} is not a bind mount: its ids cannot be mapped`);
      if (mountLabel && labelled.has(mount.type ?? "")) options.data.push(["context", mountLabel]);
      const copy = options.copyUp ? entriesOf(mount.destination) : undefined;
      return { mount, options, kind: "directory", ...(copy ? { copy } : {}) };
    }
    if (!mount.source) throw invalidArgument(`the bind mount on ${mount.destination} has no source`);
    const path = mount.source.startsWith("/") ? mount.source : `${bundle}/${mount.source}`;
    options = bindAttributes(options, inUser);
    const uids = mount.uidMappings ?? ownIds.uids;
    const gids = mount.gidMappings ?? ownIds.gids;
    const inside = rootPlace === undefined ? undefined : insideRoot(rootPlace, path);
    if (inside !== undefined && mounts.slice(0, index).some((earlier) => changes(earlier.destination, inside, options.recursive))) {
      if (!mapped) return { mount, options, inside, kind: "directory" };
      const mapping = p.tape.word("user_ns");
      planMapping(p, uids, gids, mapping, `map the ids of ${mount.destination}`);
      return { mount, options, inside, mapping, asks: inUser, kind: "directory" };
    }
    if (inUser) planLocked(p, path, options, `error mounting ${JSON.stringify(path)} to rootfs at ${JSON.stringify(mount.destination)}`);
    if (ownMounts && !mapped && options.propagation !== MS.MS_SHARED) return { mount, options, path, kind: kindOf(path) };
    if (ownMounts && !mapped && visits) {
      host ??= openHostMounts(p);
      return { mount, options, path, host, kind: kindOf(path) };
    }
    const source = p.tape.word("source");
    cloneTree(p, AT_FDCWD, path, options, source, `bind ${path} on ${mount.destination}`);
    if (mapped) {
      const why = `map the ids of ${mount.destination}`;
      const mapping = p.tape.word("user_ns");
      planMapping(p, uids, gids, mapping, why);
      planIdmap(p, source, mapping, options.idmap === "ridmap", why);
    }
    return { mount, options, source, kind: kindOf(path) };
  });
}

const NEW_MOUNTS = flags(CLONE, "CLONE_NEWNS");

function openHostMounts(p: Planner): HostMounts {
  const host = { namespace: p.tape.word("host_mounts"), root: p.tape.word("host_root") };
  const why = "keep the way to the host's mounts, for what is shared with it";
  p.open("/proc/self/ns/mnt", 0, host.namespace, { why });
  p.open("/", O.O_PATH | O.O_DIRECTORY, host.root);
  return host;
}

/** A copy that is made in the host's mount namespace. To enter one puts root and working directory elsewhere (setns(2)). */
export function cloneShared(p: Planner, host: HostMounts, path: string, options: MountOptions, store: Word, why: string): void {
  const { tape } = p;
  const own = { namespace: tape.word("own_mounts"), root: tape.word("own_root") };
  p.open("/proc/self/ns/mnt", 0, own.namespace, { why });
  p.open("/", O.O_PATH | O.O_DIRECTORY, own.root);
  const enter = ({ namespace, root }: HostMounts) => {
    tape.step(SYS.setns, [namespace, NEW_MOUNTS]);
    tape.step(SYS.fchdir, [root]);
    tape.step(SYS.chroot, ["."]);
  };
  enter(host);
  cloneTree(p, AT_FDCWD, path, options, store, why);
  enter(own);
  p.close(own.namespace);
  p.close(own.root);
}

/** Whether a mount on `destination` is seen by who takes what is at `path`. */
function changes(destination: string, path: string, recursive: boolean): boolean {
  const there = directoryName(destination);
  const taken = directoryName(path);
  return taken.startsWith(there) || (recursive && there.startsWith(taken));
}

/** What the host has locked for user namespaces is not changed in a copy (mount_namespaces(7)). struct statfs has f_flags at 80. */
function planLocked(p: Planner, path: string, options: MountOptions, why: string): void {
  const { taken, times } = changedFlags(options);
  if (!taken && times === undefined) return;
  const { tape } = p;
  const fine = tape.label();
  const locked = tape.label();
  const room = tape.room(120, "statfs");
  const flags = tape.wordAt(room, 80, 8, "statfs.f_flags");
  const reason = `unable to start container process: error during container init: ${why}`;
  tape.step(SYS.statfs, [path, room], { why: reason });
  if (taken) tape.when(flags, "BITS", taken, locked);
  if (times !== undefined) {
    const now = tape.word("times");
    tape.compute("AND", flags, ST_TIMES, now);
    tape.when(now, "NE", times, locked);
  }
  tape.jump(fine);
  tape.place(locked);
  tape.fail(errno.EPERM, reason);
  tape.place(fine);
}
