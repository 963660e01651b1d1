// The directory of a container of ours, in which it is found again:
//
//   record           pids of keeper and init with their start times, and init's exit (plan/layout.ts); whoever makes it owns the directory
//   state.json       id, bundle, cgroup: what the runtime decided before anything was done
//   exec-ID/record   the same for each further process
import { alreadyExists, Failure } from "../lib/errors.ts";
import {
  binding,
  check,
  close,
  mkdirSync,
  O_CREAT,
  O_EXCL,
  O_RDWR,
  open,
  removeSync,
  rmdirSync,
  SYS,
  unlinkSync,
  writeFileSync,
} from "../linux/index.ts";
import type { Spec } from "../oci/runtime-spec.ts";
import type { CgroupLocation } from "./cgroups/index.ts";

/** state.json. */
export interface ContainerState {
  id: string;
  bundle: string;
  cgroup: CgroupLocation;
  /** There are hooks for the end. */
  hooks: boolean;
}

const LOCK_EX = 2;

/** Makes the directory's record, for a process that is to be made; the caller closes it. Throws EEXIST where there is one. */
export function makeRecord(directory: string): number {
  const fd = open(`${directory}/record`, O_RDWR | O_CREAT | O_EXCL, 0o600);
  // The lock is the open file's, which keeper and process share: it is held as long as one of them is there, whatever is recorded yet.
  const locked = binding.syscall(SYS.flock, fd, LOCK_EX);
  if (locked < 0) close(fd);
  check(locked, "flock");
  return fd;
}

/** Makes the directory of a new container, and its record. */
export function claimState(id: string, state: string): number {
  try {
    mkdirSync(state, { recursive: true, mode: 0o711 });
  } catch (error) {
    throw new Failure("Unknown", `make state directory ${state}: ${(error as Error).message}`, { cause: error });
  }
  try {
    return makeRecord(state);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") throw alreadyExists(`container ${id} already exists in ${state}`);
    throw error;
  }
}

/** Writes down what is decided, before anything is done by it. */
export function saveState(state: string, id: string, bundle: string, cgroup: CgroupLocation, { hooks }: Spec): ContainerState {
  const saved: ContainerState = { id, bundle, cgroup, hooks: Boolean(hooks?.poststop?.length) };
  writeFileSync(`${state}/state.json`, JSON.stringify(saved), { mode: 0o600 });
  return saved;
}

/** Removes a state directory that holds just these files as a rule: a walk costs several times as much. */
export function removeState(directory: string, files: string[]): void {
  try {
    for (const file of files) unlinkSync(`${directory}/${file}`);
    rmdirSync(directory);
  } catch {
    removeSync(directory);
  }
}
