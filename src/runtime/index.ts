// The OCI runtime, in process: config.json → tape → player. For the shim; the command line is cli.ts, over the same parts.
//
// It must never know of images, snapshots, the engine or the network. At its door stand the OCI runtime specification (bundle, config.json)
// and face.ts. A container's life: create (every namespace, mount and limit is made, the process waits at its gate) → start (execve) →
// exit (recorded by the keeper) → delete; or restore, which begins at a checkpoint and needs no start. Between any two of these this process may die: adopt() goes on from the state directory.
//
//   const runtime = createRuntime();
//   const container = await runtime.create({ id, bundle, spec, rootfs, io, state });
//   await container.init.start();
//   const { status } = await container.init.exited;
//   await container.delete();
import type { Cgroup } from "./cgroups/index.ts";
import type { Runtime } from "./face.ts";

export { isUnitPath } from "./cgroups/unit-path.ts";
export type {
  CgroupStats,
  CheckpointOptions,
  CreateOptions,
  ExitRecord,
  ProcessIo,
  RestoreOptions,
  RootMount,
  RunningProcess,
  Runtime,
  RuntimeContainer,
} from "./face.ts";
export { type Circumstances, resolveDockerSeccomp } from "./seccomp-profile.ts";

export function createRuntime(): Runtime {
  // Asking for a module that is there already takes a twentieth of a millisecond each time.
  let loaded: Promise<typeof import("./container.ts")> | undefined;
  const container = () => {
    loaded ??= import("./container.ts");
    return loaded;
  };
  return {
    create: async (options) => (await container()).createContainer(options),
    restore: async (options) => (await import("./restored.ts")).restoreContainer(options),
    adopt: async (id, state) => (await import("./adopt.ts")).adoptContainer(id, state),
  };
}

/** The cgroups that a process of another runtime's is in; its numbers are empty where it can't be seen. */
export async function cgroupOfProcess(pid: number): Promise<Pick<Cgroup, "pids" | "stats" | "onOom">> {
  const { locateProcess, openCgroup } = await import("./cgroups/index.ts");
  return openCgroup(locateProcess(pid));
}

/** A static executable that does what docker-init does for the program `args`, looked for along `path`; run it as `NAME -- ARGS`. */
export async function initExecutable(args: string[], path: string): Promise<Uint8Array> {
  return (await import("./init.ts")).initExecutable({ args, path });
}
