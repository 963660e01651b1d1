// Specifications that are refused before anything is planned.
import { failedPrecondition, invalidArgument, unimplemented } from "../../lib/errors.ts";
import type { IdMapping, Spec } from "../../oci/runtime-spec.ts";
import type { Facts } from "./facts.ts";
import { checkNetDevices } from "./settings.ts";

/** What a user without rights can't have, in runc's words. */
export function checkOrdinary({ linux, mounts, process }: Spec, inUser: boolean, ownUser: boolean): void {
  if (!inUser) throw invalidArgument("rootless container requires user namespaces");
  if (process?.user?.additionalGids?.length) throw invalidArgument("cannot set any additional groups in a rootless container");
  if (!ownUser) return;
  if (!linux?.uidMappings?.length) throw invalidArgument("rootless containers requires at least one UID mapping");
  if (!linux.gidMappings?.length) throw invalidArgument("rootless containers requires at least one GID mapping");
  const inside = (maps: IdMapping[], id: number) => maps.some(({ containerID, size }) => id >= containerID && id < containerID + size);
  for (const option of mounts?.flatMap(({ options }) => options ?? []) ?? []) {
    const [, name, id] = /^(uid|gid)=(\d+)$/.exec(option) ?? [];
    if (name && !inside(name === "uid" ? linux.uidMappings : linux.gidMappings, Number(id)))
      throw invalidArgument(`cannot specify ${name}= mount options for unmapped ${name} in rootless containers`);
  }
}

/** What this machine or this runtime has not, and what contradicts itself, is refused by name, never passed over. */
export function refuseImpossible(spec: Spec, facts: Facts): void {
  const { linux = {} } = spec;
  if (linux.intelRdt && facts.resctrl) throw unimplemented("linux.intelRdt is not supported");
  if (linux.intelRdt) throw failedPrecondition("intelRdt is specified in config, but Intel RDT is not supported or enabled");
  if (linux.mountLabel && !facts.selinux)
    throw failedPrecondition("selinux mountLabel is specified in config, but selinux is disabled or not supported");
  if (!linux.namespaces?.some(({ type }) => type === "mount") && (linux.maskedPaths?.length || linux.readonlyPaths?.length))
    throw invalidArgument("unable to restrict sys entries without a private MNT namespace");
  if (linux.timeOffsets && Object.keys(linux.timeOffsets).length && !linux.namespaces?.some(({ type }) => type === "time"))
    throw invalidArgument("time namespace offsets are specified, but time namespace isn't");
  checkNetDevices(spec);
}
