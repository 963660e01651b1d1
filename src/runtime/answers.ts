// What a process asks its maker on its way to the gate, beside hooks and id maps: a place that it cannot make, an agent for its filter, the rights of the
// host over a mount.
import { Failure, messageOf } from "../lib/errors.ts";
import { binding, check, close, pidfdGetfd, SYS, utf8 } from "../linux/index.ts";
import { makeMissing } from "./missing.ts";
import { AT, MOUNT_ATTR } from "./plan/constants.ts";
import type { Plan } from "./plan/create.ts";
import type { Asking } from "./player.ts";
import { sendDescriptor } from "./send-descriptor.ts";

export function answer(plan: Plan, { pid, pidfd }: { pid: number; pidfd: number }, asking: Asking): void {
  if (asking.tag === "missing") makeMissing(plan, pidfd, asking);
  else if (asking.tag === "idmap") mapMount(pidfd, asking);
  else sendListener(plan, pid, pidfd, asking.fd);
}

/** Maps the ids of a mount that is attached nowhere yet, which takes rights over its file system, not over the place where it will be (mount_setattr(2)). */
function mapMount(remote: number, { mount, namespace, recursive }: Extract<Asking, { tag: "idmap" }>): void {
  const fds: number[] = [];
  try {
    for (const fd of [mount, namespace]) fds.push(pidfdGetfd(remote, fd));
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd
    const attr = BigUint64Array.of(BigInt(MOUNT_ATTR.MOUNT_ATTR_IDMAP), 0n, 0n, BigInt(fds[1]!));
    const flags = AT.AT_EMPTY_PATH | (recursive ? AT.AT_RECURSIVE : 0);
    check(binding.syscall(SYS.mount_setattr, fds[0]!, "", flags, attr, attr.byteLength), "map the ids of a mount");
  } finally {
    for (const fd of fds) close(fd);
  }
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
