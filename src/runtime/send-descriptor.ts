// A descriptor to a stranger: one message over a unix socket (unix(7), SCM_RIGHTS).
import { invalidArgument } from "../lib/errors.ts";
import { binding, check, close, SYS, utf8 } from "../linux/index.ts";

const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC = 1 | 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MAX_PATH = 107;

export function sendDescriptor(path: string, message: Uint8Array, fd: number): void {
  const socket = check(binding.syscall(SYS.socket, AF_UNIX, SOCK_STREAM_CLOEXEC, 0), "socket");
  try {
    const name = utf8(path);
    if (name.length > MAX_PATH) throw invalidArgument(`the path of the socket ${path} is too long`);
    const address = new Uint8Array(2 + name.length + 1);
    address[0] = AF_UNIX;
    address.set(name, 2);
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
