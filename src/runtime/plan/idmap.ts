// Idmapped mounts: files of one owner on disk belong to another one inside. The kernel takes the mapping from a user namespace
// (mount_setattr(2), MOUNT_ATTR_IDMAP), so one is made for the moment, by a process that only waits to be ended.
import { invalidArgument } from "../../lib/errors.ts";
import { errno, SYS } from "../../linux/index.ts";
import type { IdMapping } from "../../oci/runtime-spec.ts";
import { REPORT_FD, type Word } from "../tape.ts";
import { AT, flags, MOUNT_ATTR } from "./constants.ts";
import { REPORT } from "./layout.ts";
import { cloneProcess, planMaps } from "./namespaces.ts";
import { openProcess, type Planner, waitForMaker } from "./planner.ts";

/** A user namespace with these maps, in `namespace`: containerID is the owner on disk, hostID the one that is seen. */
export function planMapping(p: Planner, uids: IdMapping[], gids: IdMapping[], namespace: Word, why: string): void {
  if (uids.length === 0 || gids.length === 0) throw invalidArgument(`${why}: mappings of both user and group ids are needed`);
  const { tape } = p;
  const helper = cloneProcess(p, ["CLONE_NEWUSER"], true, undefined, why);
  const parent = tape.label();
  tape.when(helper.pid, "NE", 0, parent);
  tape.step(SYS.pause, []);
  tape.step(SYS.exit_group, [0]);
  tape.place(parent);
  planMaps(p, helper.pid, uids, gids);
  const directory = openProcess(p, helper.pid, why);
  p.open("ns/user", 0, namespace, { at: directory });
  tape.step(SYS.pidfd_send_signal, [helper.pidfd, { value: 9, name: "SIGKILL" }, 0, 0]);
  tape.step(SYS.waitid, [{ value: 3, name: "P_PIDFD" }, helper.pidfd, 0, { value: 4, name: "WEXITED" }, 0], { retry: errno.EINTR });
  for (const each of [directory, helper.pidfd]) p.close(each);
}

/** Maps the ids of the detached mount `fd`, and closes the namespace that says how. */
export function planIdmap(p: Planner, fd: Word, namespace: Word, recursive: boolean, why: string): void {
  const { tape } = p;
  // struct mount_attr: attr_set, attr_clr, propagation, userns_fd
  const attr = tape.structure([MOUNT_ATTR.MOUNT_ATTR_IDMAP, 0, 0, 0], "{MOUNT_ATTR_IDMAP, user_ns}");
  tape.compute("ADD", namespace, 0, tape.wordAt(attr, 24, 8, "mount_attr.userns_fd"));
  const flag = recursive ? flags(AT, "AT_EMPTY_PATH", "AT_RECURSIVE") : flags(AT, "AT_EMPTY_PATH");
  tape.step(SYS.mount_setattr, [fd, "", flag, attr, 32], { why });
  p.close(namespace);
}

/** The same for a process that has no rights over the file system: its maker does it. */
export function askForIdmap(p: Planner, fd: Word, namespace: Word, recursive: boolean, why: string): void {
  const { tape } = p;
  const report = tape.bytes(new Uint8Array(Uint32Array.of(REPORT.idmap, recursive ? 1 : 0, 0, 0).buffer), "{idmap, mount, user_ns}");
  tape.compute("ADD", fd, 0, tape.wordAt(report, 8, 4, "{idmap}.mount"));
  tape.compute("ADD", namespace, 0, tape.wordAt(report, 12, 4, "{idmap}.user_ns"));
  tape.step(SYS.write, [{ value: REPORT_FD, name: "report" }, report, REPORT.size], { why });
  waitForMaker(p);
  p.close(namespace);
}

/** What the host's id is in a user namespace; -1, which changes nothing for chown(2), where it is none. */
export function idInside(maps: IdMapping[], id: number): number {
  const map = maps.find(({ hostID, size }) => id >= hostID && id < hostID + size);
  return map ? map.containerID + id - map.hostID : -1;
}
