// What a process asks its maker on its way to the gate, beside hooks and id maps: a place that it cannot make, an agent for its filter.
import { Failure, messageOf } from "../lib/errors.ts";
import { close, pidfdGetfd, utf8 } from "../linux/index.ts";
import { makeMissing } from "./missing.ts";
import type { Plan } from "./plan/create.ts";
import type { Asking } from "./player.ts";
import { sendDescriptor } from "./send-descriptor.ts";

export function answer(plan: Plan, { pid, pidfd }: { pid: number; pidfd: number }, asking: Asking): void {
  if (asking.tag === "missing") makeMissing(plan, pidfd, asking);
  else sendListener(plan, pid, pidfd, asking.fd);
}

/** Gives the listener of the filter to the agent behind listenerPath, with the state of the process (runtime-spec config-linux.md, "The Container Process State"). */
function sendListener(plan: Plan, pid: number, pidfd: number, remote: number): void {
  const { listener } = plan;
  if (!listener) throw new Failure("Unknown", "the player has a seccomp listener, which its plan has not");
  const { path, metadata, state } = listener;
  const processState = {
    ociVersion: state.ociVersion,
    fds: ["seccompFd"],
    pid,
    ...(metadata === undefined ? {} : { metadata }),
    state: { ...state, pid: state.pid ?? pid },
  };
  const fd = pidfdGetfd(pidfd, remote);
  try {
    sendDescriptor(path, utf8(JSON.stringify(processState)), fd);
  } catch (error) {
    throw new Failure("FailedPrecondition", `failed to connect with seccomp agent specified in the seccomp profile: ${messageOf(error)}`, {
      cause: error,
    });
  } finally {
    close(fd);
  }
}
