// start: opens the gate of a created container, whose both ends its init holds.
import { Failure } from "../../lib/errors.ts";
import { binding, close, errnoName, errnoText, pidfdGetfd, SYS } from "../../linux/index.ts";
import { openIdentity } from "../identity.ts";
import { FD } from "../plan/layout.ts";
import type { Context } from "./context.ts";
import { startCreated } from "./create.ts";
import { idOf, parseFlags } from "./flags.ts";
import { openGateNow } from "./launch.ts";
import { statusOf } from "./store.ts";

export async function start(context: Context, argv: string[]): Promise<number> {
  const flags = parseFlags(argv, {});
  const id = idOf("start", flags);
  const { store } = context;
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
    try {
      gate = pidfdGetfd(pidfd, FD.gateWrite);
      report = pidfdGetfd(pidfd, FD.reportRead);
      binding.syscall(SYS.fcntl, report, 4, 0o4000);
      const process = spec.process!;
      await startCreated(context, stored, spec, pidfd, () => {
        openGateNow(stored.init.pid, gate, report, process.env, process.user?.uid ?? 0, (_, number) => {
          return new Failure("Unknown", `exec ${process.args?.[0]}: ${errnoText(number)} (${errnoName(number)})`);
        });
      });
    } finally {
      close(gate);
      close(report);
      close(pidfd);
    }
  });
  return 0;
}
