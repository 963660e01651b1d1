// Unix sockets as bare descriptors: to be inherited by a process that is started, or looked at without an event loop.
import { AF_UNIX, binding, check, close, errno, O_CLOEXEC, SYS, unixAddress } from "../linux/index.ts";

const SOCK_STREAM = 1;

/** A listening unix socket, close-on-exec; whatever stood at the path is replaced. */
export function listenUnix(path: string, flags = 0): number {
  const fd = check(binding.syscall(SYS.socket, AF_UNIX, SOCK_STREAM | O_CLOEXEC | flags, 0), "socket");
  try {
    binding.syscall(SYS.unlink, path);
    const address = unixAddress(path);
    check(binding.syscall(SYS.bind, fd, address, address.length), `bind ${path}`);
    check(binding.syscall(SYS.listen, fd, 4096), `listen ${path}`);
  } catch (error) {
    close(fd);
    throw error;
  }
  return fd;
}

/** A connection to a unix socket, or undefined where no one listens there. */
export function connectUnix(path: string): number | undefined {
  const fd = check(binding.syscall(SYS.socket, AF_UNIX, SOCK_STREAM | O_CLOEXEC, 0), "socket");
  const address = unixAddress(path);
  const result = binding.syscall(SYS.connect, fd, address, address.length);
  if (result === 0) return fd;
  close(fd);
  if (result === -errno.ENOENT || result === -errno.ECONNREFUSED) return undefined;
  check(result, `connect ${path}`);
  return undefined;
}
