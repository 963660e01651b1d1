// Id maps of a user namespace that its user may not write himself: newuidmap(1) and newgidmap(1), which are privileged, write what /etc/subuid
// and /etc/subgid give him.
import { failedPrecondition } from "../lib/errors.ts";
import { findProgram } from "../lib/find-program.ts";
import type { IdMapping, Linux } from "../oci/runtime-spec.ts";
import { createPlanner } from "./plan/planner.ts";
import { planProgram, runProgram } from "./run-program.ts";

/** Seconds. */
const TIMEOUT = 10;

export async function mapIds(pid: number, { uidMappings = [], gidMappings = [] }: Linux): Promise<void> {
  await map("newuidmap", pid, uidMappings);
  await map("newgidmap", pid, gidMappings);
}

async function map(program: string, pid: number, maps: readonly IdMapping[]): Promise<void> {
  const path = findProgram(program);
  if (!path)
    throw failedPrecondition(
      `the mappings of user namespaces other than one's own id need ${program} (Debian's package uidmap), which is not installed`,
    );
  const p = createPlanner();
  const args = [program, String(pid), ...maps.flatMap(({ containerID, hostID, size }) => [containerID, hostID, size].map(String))];
  planProgram(p, { path, args, env: Object.entries(process.env).map(([name, value]) => `${name}=${value}`) });
  const { problem, late, status, stderr } = await runProgram("jubako-idmap", p.tape, { timeout: TIMEOUT });
  if (late) throw failedPrecondition(`${program}: it took longer than ${TIMEOUT} s`);
  if (problem !== undefined) throw failedPrecondition(`${program}: ${problem}`);
  if (status !== 0) throw failedPrecondition(`${program}: ${stderr.trim() || `it ended with status ${status}`}`);
}
