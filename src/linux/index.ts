// The kernel, typed: raw system calls, descriptors, processes, readiness. Everything here is synchronous and cheap (a system call), or
// says otherwise. It must never know of containers, images or networks; it imports nothing of ours.
//
//   const { pid, pidfd } = spawn({ exe, argv: ["player"], fds: [0, 1, 2, tape] });
//   const exited = watch(pidfd, EPOLLIN, () => { exited.close(); const exit = reap(pidfd); close(pidfd); });
export * from "./apart.ts";
export { hasApparmor } from "./apparmor.ts";
export type { Argument, Binding } from "./binding.ts";
export { binding } from "./binding.ts";
export type { ErrnoName } from "./errno.ts";
export { check, errno, errnoName, errnoText, SystemError } from "./errno.ts";
export * from "./fd.ts";
export * from "./files.ts";
export * from "./memory.ts";
export * from "./mount-options.ts";
export * from "./netlink.ts";
export * from "./netlink-conntrack.ts";
export * from "./netlink-nft.ts";
export {
  CT_ESTABLISHED_RELATED,
  CT_STATUS_DNAT,
  compare,
  connection,
  destinationIsLocal,
  dnat,
  type Expression,
  fields,
  immediate,
  lookup,
  mask,
  masquerade,
  meta,
  payload,
  portField,
  type SetType,
  setPayload,
  verdict,
} from "./netlink-nft-expressions.ts";
export * from "./netlink-route.ts";
export * from "./netns.ts";
export * from "./overlay.ts";
export * from "./poll.ts";
export { signalOf } from "./signals.ts";
export type { Spawn } from "./spawn.ts";
export { spawn, spawnError, stringVector } from "./spawn.ts";
export { SYS, syscallName } from "./sys.ts";
export { AF_UNIX, unixAddress } from "./unix-address.ts";
