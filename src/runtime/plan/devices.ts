// What every container finds in /dev (runtime-spec config-linux.md, "Default Devices" and "Default filesystems"), and the devices asked for.

import { invalidArgument } from "../../lib/errors.ts";
import { errno, SYS } from "../../linux/index.ts";
import type { Device, Spec } from "../../oci/runtime-spec.ts";
import type { Word } from "../tape.ts";
import { AT, AT_FDCWD, flags, S } from "./constants.ts";
import { attach, cloneTree } from "./detached-mounts.ts";
import { parseOptions } from "./mount-options.ts";
import type { Planner } from "./planner.ts";

export const defaultDevices: Device[] = [
  { path: "/dev/null", type: "c", major: 1, minor: 3, fileMode: 0o666 },
  { path: "/dev/random", type: "c", major: 1, minor: 8, fileMode: 0o666 },
  { path: "/dev/full", type: "c", major: 1, minor: 7, fileMode: 0o666 },
  { path: "/dev/tty", type: "c", major: 5, minor: 0, fileMode: 0o666 },
  { path: "/dev/zero", type: "c", major: 1, minor: 5, fileMode: 0o666 },
  { path: "/dev/urandom", type: "c", major: 1, minor: 9, fileMode: 0o666 },
];

const links: [target: string, path: string][] = [
  ["/proc/self/fd", "fd"],
  ["/proc/self/fd/0", "stdin"],
  ["/proc/self/fd/1", "stdout"],
  ["/proc/self/fd/2", "stderr"],
];

/** Whether /dev is the runtime's to fill: not where it is a bind mount. */
export function ownsDev(spec: Spec): boolean {
  return !(spec.mounts ?? []).some((m) => /^\/dev\/*$/.test(m.destination) && (m.type === "bind" || parseOptions(m.options ?? []).bind));
}

const hasTerminals = (spec: Spec) => (spec.mounts ?? []).some((m) => m.type === "devpts" && m.destination === "/dev/pts");

function devicesOf(spec: Spec): Device[] {
  const devices = new Map(defaultDevices.map((d) => [d.path, d]));
  const ownTerminals = hasTerminals(spec);
  // /dev/ptmx leads to the container's own terminals, whatever else is asked for.
  for (const device of spec.linux?.devices ?? []) if (!ownTerminals || device.path !== "/dev/ptmx") devices.set(device.path, device);
  return [...devices.values()];
}

/** struct stat's st_rdev packs numbers as makedev(3). */
function makedev(major: number, minor: number): number {
  return (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12);
}

const fileTypes: Record<string, number> = { c: S.S_IFCHR, u: S.S_IFCHR, b: S.S_IFBLK, p: S.S_IFIFO };

/** In a user namespace mknod(2) is refused: the host's nodes are bound instead; their copies are made before the namespace. */
export function planDeviceSources(p: Planner, spec: Spec): { device: Device; source: Word }[] {
  if (!ownsDev(spec)) return [];
  return devicesOf(spec).map((device) => {
    const source = p.tape.word("device");
    cloneTree(p, AT_FDCWD, device.path, parseOptions([]), source, `bind device ${device.path}`);
    return { device, source };
  });
}

export function planDevices(p: Planner, spec: Spec, root: Word, sources: { device: Device; source: Word }[] | undefined): void {
  if (!ownsDev(spec)) return;
  const { tape } = p;
  const dev = tape.word("dev");
  if (sources) {
    const place = tape.word("place");
    for (const { device, source } of sources) {
      p.ensure(root, device.path, "file", place, `bind device ${device.path}`);
      attach(p, source, place);
      p.close(place);
      p.close(source);
    }
  }
  p.ensure(root, "/dev", "directory", dev, "open /dev");
  if (!sources) {
    const parent = tape.word("parent");
    for (const device of devicesOf(spec)) {
      const type = fileTypes[device.type];
      if (type === undefined) throw invalidArgument(`device ${device.path} has the unknown type ${JSON.stringify(device.type)}`);
      const name = device.path.replace(/^\/dev\//, "");
      const why = `make device ${device.path}`;
      let at: Word = dev;
      let base = name;
      if (name.includes("/")) {
        const slash = device.path.lastIndexOf("/");
        p.ensure(root, device.path.slice(0, slash) || "/", "directory", parent, why);
        at = parent;
        base = device.path.slice(slash + 1);
      }
      const mode = type | (device.fileMode ?? 0o666);
      const number = makedev(device.major ?? 0, device.minor ?? 0);
      tape.step(
        SYS.mknodat,
        [
          at,
          base,
          { value: mode, name: `0${mode.toString(8)}` },
          { value: number, name: `makedev(${device.major ?? 0}, ${device.minor ?? 0})` },
        ],
        { why, ignore: [errno.EEXIST] },
      );
      if (device.uid || device.gid) tape.step(SYS.fchownat, [at, base, device.uid ?? 0, device.gid ?? 0, flags(AT, "AT_SYMLINK_NOFOLLOW")]);
      if (at === parent) p.close(parent);
    }
  }
  for (const [target, path] of links) {
    tape.step(SYS.symlinkat, [target, dev, path], { why: `link /dev/${path}`, ignore: [errno.EEXIST] });
  }
  if (hasTerminals(spec)) {
    // The image may have a node of its own there, which belongs to another devpts.
    tape.step(SYS.unlinkat, [dev, "ptmx", 0], { why: "link /dev/ptmx", ignore: "all" });
    tape.step(SYS.symlinkat, ["pts/ptmx", dev, "ptmx"], { ignore: [errno.EEXIST] });
  }
  p.close(dev);
}
