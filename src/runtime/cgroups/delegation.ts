// Who owns the container's cgroup (the runtime specification, config-linux.md, "Cgroup Ownership"): the user of its process, where it sees a
// cgroup namespace of its own and may write to it, so that a systemd inside can make cgroups below. Of v2 only: v1's are no border.
import { chownSync, readFileSync } from "../../linux/index.ts";
import type { IdMapping, Spec } from "../../oci/runtime-spec.ts";

/** The kernel's own list, or what it was before there was a list. */
function delegatedFiles(): string[] {
  try {
    return readFileSync("/sys/kernel/cgroup/delegate", "utf8").split("\n").filter(Boolean);
  } catch {
    return ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];
  }
}

const normal = (path: string) => `/${path.split("/").filter(Boolean).join("/")}`;

/** The host's number of the user who shall own it; undefined: it stays the maker's. */
export function cgroupOwner({ linux, mounts = [], process }: Spec): number | undefined {
  const namespaces = linux?.namespaces ?? [];
  if (!namespaces.some(({ type, path }) => type === "cgroup" && !path)) return undefined;
  const shown = mounts.some(
    ({ source, destination, options = [] }) =>
      source === "cgroup" &&
      normal(destination) === "/sys/fs/cgroup" &&
      options.findLast((option) => option === "ro" || option === "rw") !== "ro",
  );
  if (!shown) return undefined;
  const uid = process?.user?.uid ?? 0;
  if (!namespaces.some(({ type }) => type === "user")) return uid;
  const inside = ({ containerID, size }: IdMapping) => containerID <= uid && uid < containerID + size;
  const map = linux?.uidMappings?.find(inside);
  return map && map.hostID + uid - map.containerID;
}

/** The directory, and of its files those that are made for it; `ifMayBe`: where the maker may not give it away, it stays its own. */
export function giveCgroup(directory: string, owner: number, ifMayBe = false): void {
  const give = (path: string, fine: string | false) => {
    try {
      chownSync(path, owner, -1);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== fine) throw error;
      return false;
    }
  };
  if (give(directory, ifMayBe && "EPERM")) for (const name of delegatedFiles()) give(`${directory}/${name}`, "ENOENT");
}
