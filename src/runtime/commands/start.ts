// start: opens the gate of a created container, whose both ends its init holds.
import { Failure } from "../../lib/errors.ts";
import {
  binding,
  close,
  errnoName,
  errnoText,
  existsSync,
  pidfdGetfd,
  pidfdOpen,
  readBytesSync,
  SYS,
  unlinkSync,
} from "../../linux/index.ts";
import type { Process } from "../../oci/runtime-spec.ts";
import { openIdentity } from "../identity.ts";
import { FAILED_FILE } from "../life-file.ts";
import { FD } from "../plan/layout.ts";
import type { Context } from "./context.ts";
import { idOf, parseFlags } from "./flags.ts";
import { homeFor, openGateNow, openNotify, startCreated } from "./life.ts";
import type { NotifySocket } from "./notify-socket.ts";
import { statusOf } from "./store.ts";

const notRun = (process: Process, number: number) =>
  new Failure("Unknown", `exec ${process.args?.[0]}: ${errnoText(number)} (${errnoName(number)})`);

/** The errno that a tape met when it opened the gate in this command's place (life-tape.ts). */
function failureOf(file: string): number | undefined {
  if (!existsSync(file)) return undefined;
  const number = Number(new BigInt64Array(readBytesSync(file).buffer, 8, 1)[0]);
  unlinkSync(file);
  return number;
}

export async function start(context: Context, argv: string[]): Promise<number> {
  const flags = parseFlags(argv, {});
  const id = idOf("start", flags);
  const { store } = context;
  let told: Promise<void> | undefined;
  await store.locked(id, async () => {
    const stored = store.load(id);
    const failed = failureOf(`${store.root}/${id}/${FAILED_FILE}`);
    if (failed !== undefined) throw notRun(store.spec(id).process!, failed);
    const status = statusOf(stored);
    if (status === "stopped") throw new Failure("FailedPrecondition", "cannot start a container that has stopped");
    if (status !== "created") throw new Failure("FailedPrecondition", "cannot start an already running container");
    const spec = store.spec(id);
    const pidfd = openIdentity(stored.init);
    if (pidfd === undefined) throw new Failure("FailedPrecondition", "cannot start a container that has stopped");
    let gate = -1;
    let report = -1;
    let notify: NotifySocket | undefined;
    try {
      notify = await openNotify(context, id);
      gate = pidfdGetfd(pidfd, FD.gateWrite);
      report = pidfdGetfd(pidfd, FD.reportRead);
      binding.syscall(SYS.fcntl, report, 4, 0o4000);
      const process = spec.process!;
      await startCreated(stored, spec, pidfd, () => {
        return openGateNow(homeFor(stored.init.pid, process), gate, report, (_, number) => notRun(process, number));
      });
      if (notify) {
        const own = pidfdOpen(stored.init.pid);
        told = notify.told(stored.init.pid, own).finally(() => close(own));
      }
    } catch (error) {
      notify?.close();
      throw error;
    } finally {
      close(gate);
      close(report);
      close(pidfd);
    }
  });
  await told;
  return 0;
}
