// Device nodes of a container and what its devices cgroup allows.
import { lstatSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { DeviceMapping, HostConfig } from "../../../api/types.ts";
import { invalidArgument, messageOf, unknown } from "../../../lib/errors.ts";
import type { Device, DeviceRule } from "../../../oci/runtime-spec.ts";
import { deviceNumbers } from "./resources.ts";

const rule = (allow: boolean, type: string, major: number, minor: number, access: string): DeviceRule => ({
  allow,
  type,
  major,
  minor,
  access,
});

/** All denied, then making nodes and the standard ones allowed. */
const DEFAULT_RULES: DeviceRule[] = [
  { allow: false, access: "rwm" },
  rule(true, "c", -1, -1, "m"),
  rule(true, "b", -1, -1, "m"),
  // null, zero, full, random, urandom, tty, console, ptmx, pts
  rule(true, "c", 1, 3, "rwm"),
  rule(true, "c", 1, 5, "rwm"),
  rule(true, "c", 1, 7, "rwm"),
  rule(true, "c", 1, 8, "rwm"),
  rule(true, "c", 1, 9, "rwm"),
  rule(true, "c", 5, 0, "rwm"),
  rule(true, "c", 5, 1, "rwm"),
  rule(true, "c", 5, 2, "rwm"),
  rule(true, "c", 136, -1, "rwm"),
];

const SKIPPED = new Set(["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"]);

function nodeAt(hostPath: string, path: string): Device | undefined {
  const found = statSync(hostPath);
  const type = found.isCharacterDevice() ? "c" : found.isBlockDevice() ? "b" : undefined;
  if (!type) return undefined;
  return { path, type, ...deviceNumbers(found.rdev), fileMode: found.mode & 0o7777, uid: found.uid, gid: found.gid };
}

/** Every device node below a directory of the host. */
function nodesBelow(directory: string, path: string): Device[] {
  const devices: Device[] = [];
  for (const name of readdirSync(directory)) {
    const from = join(directory, name);
    const found = lstatSync(from, { throwIfNoEntry: false });
    if (!found || found.isSymbolicLink()) continue;
    if (found.isDirectory()) {
      if (!SKIPPED.has(name)) devices.push(...nodesBelow(from, join(path, name)));
    } else if (name !== "console") {
      const device = nodeAt(from, join(path, name));
      if (device) devices.push(device);
    }
  }
  return devices;
}

let hostDevices: { at: number; devices: Device[] } | undefined;

/** All of the host's, for privileged containers; looked up again after five seconds. */
function allDevices(): Device[] {
  if (!hostDevices || Date.now() - hostDevices.at > 5000) hostDevices = { at: Date.now(), devices: nodesBelow("/dev", "/dev") };
  return hostDevices.devices;
}

function mapped(mapping: DeviceMapping): Device[] {
  const from = mapping.PathOnHost ?? "";
  const path = mapping.PathInContainer || from;
  try {
    if (statSync(from).isDirectory()) return nodesBelow(from, path);
    const device = nodeAt(from, path);
    if (!device) throw new Error("not a device node");
    return [device];
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code === "ENOENT" ? "no such file or directory" : messageOf(error);
    throw unknown(`error gathering device information while adding custom device "${from}": ${why}`);
  }
}

const RULE = /^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$/;

/** Refuses rules and mappings that can't be meant; for create time. */
export function checkDevices(host: HostConfig): void {
  for (const each of host.DeviceCgroupRules ?? [])
    if (!RULE.test(each)) throw invalidArgument(`invalid device cgroup rule format: '${each}'`);
  for (const { CgroupPermissions } of host.Devices ?? []) {
    if (CgroupPermissions && !/^[rwm]{1,3}$/.test(CgroupPermissions)) throw invalidArgument(`invalid device mode: ${CgroupPermissions}`);
  }
}

export function devices(host: HostConfig): { devices: Device[]; rules: DeviceRule[] } {
  const request = host.DeviceRequests?.[0];
  if (request)
    throw unknown(
      `could not select device driver "${request.Driver ?? ""}" with capabilities: ${JSON.stringify(request.Capabilities ?? []).replaceAll('"', "")}`,
    );
  if (host.Privileged) return { devices: allDevices(), rules: [{ allow: true, access: "rwm" }] };
  if (!host.Devices?.length && !host.DeviceCgroupRules?.length) return { devices: [], rules: DEFAULT_RULES };
  const nodes: Device[] = [];
  const rules = [...DEFAULT_RULES];
  for (const mapping of host.Devices ?? []) {
    for (const device of mapped(mapping)) {
      nodes.push(device);
      rules.push(rule(true, device.type, device.major ?? -1, device.minor ?? -1, mapping.CgroupPermissions || "rwm"));
    }
  }
  for (const each of host.DeviceCgroupRules ?? []) {
    const match = RULE.exec(each);
    if (!match) throw invalidArgument(`invalid device cgroup rule format: '${each}'`);
    const number = (text: string) => (text === "*" ? -1 : Number(text));
    rules.push(rule(true, match[1]!, number(match[2]!), number(match[3]!), match[4]!));
  }
  return { devices: nodes, rules };
}
