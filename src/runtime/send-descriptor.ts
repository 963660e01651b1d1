// A descriptor to a stranger: one message over a unix socket (unix(7), SCM_RIGHTS).
import { AF_UNIX, binding, check, close, SYS, unixAddress } from "../linux/index.ts";

const SOCK_STREAM_CLOEXEC = 1 | 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;

export function sendDescriptor(path: string, message: Uint8Array, fd: number): void {
  const socket = check(binding.syscall(SYS.socket, AF_UNIX, SOCK_STREAM_CLOEXEC, 0), "socket");
  try {
    const address = unixAddress(path);
    check(binding.syscall(SYS.connect, socket, address, address.length), `connect to socket ${path}`);
    const iov = new BigUint64Array([BigInt(binding.address(message)), BigInt(message.length)]);
    // struct cmsghdr: len, level, type; then the descriptor
    const control = new Uint8Array(24);
    const view = new DataView(control.buffer);
    view.setBigUint64(0, 20n, true);
    view.setInt32(8, SOL_SOCKET, true);
    view.setInt32(12, SCM_RIGHTS, true);
    view.setInt32(16, fd, true);
    // struct msghdr: name, namelen, iov, iovlen, control, controllen, flags
    const header = new BigUint64Array([0n, 0n, BigInt(binding.address(iov)), 1n, BigInt(binding.address(control)), 24n, 0n]);
    check(binding.syscall(SYS.sendmsg, socket, header, 0), `send a descriptor to ${path}`);
    // Only their addresses went to the kernel.
    void [message, iov, control];
  } finally {
    close(socket);
  }
}
