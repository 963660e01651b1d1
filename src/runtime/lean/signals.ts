// Signals that this program is sent, by signalfd(2), in the place of src/runtime/signals.ts. What this host starts has none blocked (native/spawn.h).
import { binding, check, close, EPOLLIN, O_CLOEXEC, O_NONBLOCK, read, SYS, signalOf, watch } from "../../linux/index.ts";

const SIG_BLOCK = 0;
const SIG_SETMASK = 2;
/** The kernel's sigset_t is 64 bits: signal 1 is the lowest. */
const SET_SIZE = 8;
const SIGINFO_SIZE = 128;

export function onSignals<Name extends string>(names: readonly Name[], handler: (name: Name) => void): () => void {
  const byNumber = new Map(names.map((name) => [signalOf(name) ?? 0, name]));
  const set = new BigUint64Array(1);
  for (const number of byNumber.keys()) set[0]! |= 1n << BigInt(number - 1);
  const old = new BigUint64Array(1);
  const fd = check(binding.syscall(SYS.signalfd4, -1, set, SET_SIZE, O_CLOEXEC | O_NONBLOCK), "signalfd4");
  check(binding.syscall(SYS.rt_sigprocmask, SIG_BLOCK, set, old, SET_SIZE), "rt_sigprocmask");
  const info = new Uint8Array(SIGINFO_SIZE);
  const number = new Uint32Array(info.buffer, 0, 1);
  const hearing = watch(
    fd,
    EPOLLIN,
    () => {
      while (read(fd, info)) handler(byNumber.get(number[0]!)!);
    },
    { ref: false },
  );
  return () => {
    hearing.close();
    close(fd);
    binding.syscall(SYS.rt_sigprocmask, SIG_SETMASK, old, null, SET_SIZE);
  };
}
