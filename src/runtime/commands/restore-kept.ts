// restore-kept STATE: restores the process that a keeper is waiting for; run by the keeper (plan/restore.ts), never by people. Descriptors are at the keeper's
// numbers: stdin, stdout and stderr are the process', its record and the gate are at FD.
import { readFileSync, writeFileSync } from "node:fs";
import { invalidArgument, messageOf } from "../../lib/errors.ts";
import { binding, check, SYS } from "../../linux/index.ts";
import type { Spec, State } from "../../oci/runtime-spec.ts";
import { restoreProcess } from "../criu-restore.ts";
import { FD, RECORD } from "../plan/layout.ts";
import { rootPathOf } from "../plan/root-path.ts";
import type { Restoration } from "../restored.ts";
import { REPORT_FD } from "../tape.ts";
import type { Context } from "./context.ts";

const F_SETFD = 2;
const FD_CLOEXEC = 1;

export async function restoreKept(context: Context, [state]: string[]): Promise<number> {
  if (!state) throw invalidArgument("restore-kept needs the container's state directory: it is run by a keeper");
  try {
    await restore(context, state);
    return 0;
  } catch (error) {
    // Its standard error is the container's.
    writeFileSync(`${state}/restore.error`, messageOf(error), { mode: 0o600 });
    return 1;
  }
}

async function restore({ criu }: Context, state: string): Promise<void> {
  for (let fd: number = FD.process; fd <= REPORT_FD; fd++) binding.syscall(SYS.fcntl, fd, F_SETFD, FD_CLOEXEC);
  const { id, bundle, rootfs, cgroup, images, work, terminal } = JSON.parse(readFileSync(`${state}/restore.json`, "utf8")) as Restoration;
  const spec = JSON.parse(readFileSync(`${bundle}/config.json`, "utf8")) as Spec;
  const subject = { spec, bundle, rootfs: rootPathOf(spec, bundle), cgroup };
  const restored = await restoreProcess(subject, rootfs, { images, work, criu, sibling: true }, async (pid) => {
    if (!spec.hooks) return;
    const { runHooks } = await import("../hooks.ts");
    const { annotations, ociVersion } = spec;
    const told: State = { ociVersion, id, status: "creating", pid, bundle, ...(annotations ? { annotations } : {}) };
    await runHooks("prestart", spec.hooks, told);
    await runHooks("createRuntime", spec.hooks, told);
  });
  if (terminal && restored.terminal === undefined) throw invalidArgument("the checkpoint is of a process without a terminal");
  const stat = readFileSync(`/proc/${restored.pid}/stat`);
  check(binding.syscall(SYS.pwrite64, FD.record, stat, Math.min(stat.length, RECORD.stat - 1), RECORD.process), "write record");
  const message = BigUint64Array.from([restored.pid, restored.criu, restored.terminal ?? 0].map(BigInt));
  check(binding.syscall(SYS.write, FD.gateWrite, message, message.byteLength), "write gate");
  // The keeper takes the terminal from here.
  check(binding.syscall(SYS.read, FD.placed, new Uint8Array(8), 8), "read placed");
}
