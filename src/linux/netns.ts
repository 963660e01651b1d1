// Network namespaces (network_namespaces(7)) held by descriptors alone: no bind mounts. The thread that runs JavaScript visits another
// namespace for the length of a synchronous function and always comes back; sockets made there stay there.
import { binding } from "./binding.ts";
import { check } from "./errno.ts";
import { close, O_RDONLY, open } from "./fd.ts";
import { SYS } from "./sys.ts";

const CLONE_NEWNET = 0x40000000;
const EX_SOFTWARE = 70;
const OWN = "/proc/thread-self/ns/net";

let home = -1;

function homeNetns(): number {
  if (home < 0) home = open(OWN, O_RDONLY);
  return home;
}

function goHome(): void {
  if (binding.syscall(SYS.setns, homeNetns(), CLONE_NEWNET) < 0) {
    // Everything the process does from here on would happen in the wrong network.
    const words = "fatal: cannot return to the own network namespace\n";
    binding.syscall(SYS.write, 2, words, words.length);
    binding.syscall(SYS.exit_group, EX_SOFTWARE);
  }
}

/** Makes a network namespace; runs `prepare` inside. The returned descriptor (O_CLOEXEC) is the caller's and keeps it alive. About 0.4 ms. */
export function makeNetns(prepare?: () => void): number {
  homeNetns();
  check(binding.syscall(SYS.unshare, CLONE_NEWNET), "unshare network namespace");
  let fd = -1;
  try {
    fd = open(OWN, O_RDONLY);
    prepare?.();
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  } finally {
    goHome();
  }
}

/** Runs the synchronous `fn` inside the network namespace behind `fd`. Nothing asynchronous may start in it except on descriptors it made. */
export function inNetns<T>(fd: number, fn: () => T): T {
  homeNetns();
  check(binding.syscall(SYS.setns, fd, CLONE_NEWNET), "setns network namespace");
  try {
    return fn();
  } finally {
    goHome();
  }
}

/** The network namespace of a process; ENOENT or ESRCH where it is gone. The descriptor is the caller's. */
export function netnsOf(pid: number): number {
  return open(`/proc/${pid}/ns/net`, O_RDONLY);
}
