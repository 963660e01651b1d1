// Id maps of a user namespace that its user may not write himself: newuidmap(1) and newgidmap(1), which are privileged, write what /etc/subuid
// and /etc/subgid give him.
import { spawnSync } from "node:child_process";
import { Failure, failedPrecondition } from "../lib/errors.ts";
import type { IdMapping, Linux } from "../oci/runtime-spec.ts";

export function mapIds(pid: number, { uidMappings = [], gidMappings = [] }: Linux): void {
  map("newuidmap", pid, uidMappings);
  map("newgidmap", pid, gidMappings);
}

function map(program: string, pid: number, maps: readonly IdMapping[]): void {
  const args = [pid, ...maps.flatMap(({ containerID, hostID, size }) => [containerID, hostID, size])].map(String);
  const { error, status, stderr } = spawnSync(program, args, { encoding: "utf8", timeout: 10_000 });
  if ((error as NodeJS.ErrnoException | undefined)?.code === "ENOENT")
    throw failedPrecondition(
      `the mappings of user namespaces other than one's own id need ${program} (Debian's package uidmap), which is not installed`,
    );
  if (error) throw new Failure("Unknown", `${program}: ${error.message}`, { cause: error });
  if (status !== 0) throw failedPrecondition(`${program}: ${stderr.trim() || `it ended with status ${status}`}`);
}
