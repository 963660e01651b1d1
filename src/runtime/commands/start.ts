// start: opens the gate of a created container, whose both ends its init holds.
import { Failure } from "../../lib/errors.ts";
import { binding, close, errnoName, errnoText, pidfdGetfd, pidfdOpen, SYS } from "../../linux/index.ts";
import { openIdentity } from "../identity.ts";
import { FD } from "../plan/layout.ts";
import type { Context } from "./context.ts";
import { idOf, parseFlags } from "./flags.ts";
import { openGateNow, openNotify, startCreated } from "./life.ts";
import type { NotifySocket } from "./notify-socket.ts";
import { statusOf } from "./store.ts";

export async function start(context: Context, argv: string[]): Promise<number> {
  const flags = parseFlags(argv, {});
  const id = idOf("start", flags);
  const { store } = context;
  let told: Promise<void> | undefined;
  await store.locked(id, async () => {
    const stored = store.load(id);
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
      await startCreated(context, stored, spec, pidfd, () => {
        openGateNow(stored.init.pid, gate, report, process.env, process.user?.uid ?? 0, (_, number) => {
          return new Failure("Unknown", `exec ${process.args?.[0]}: ${errnoText(number)} (${errnoName(number)})`);
        });
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
