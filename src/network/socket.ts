// Non-blocking internet sockets by raw system calls: the only way to have them in another network namespace. Readiness comes by `watch`.
import { binding, check, close, errno, SYS } from "../linux/index.ts";

const AF_INET = 2;
const AF_INET6 = 10;
const STREAM = 1;
const DATAGRAM = 2;
const NONBLOCK_CLOEXEC = 0o4000 | 0o2000000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

export type Kind = "udp" | "tcp";

export function sockaddr(address: Uint8Array, port: number): Uint8Array {
  const v4 = address.length === 4;
  const out = new Uint8Array(v4 ? 16 : 28);
  out[0] = v4 ? AF_INET : AF_INET6;
  out[2] = port >> 8;
  out[3] = port & 255;
  out.set(address, v4 ? 4 : 8);
  return out;
}

function socket(kind: Kind, address: Uint8Array): number {
  const family = address.length === 4 ? AF_INET : AF_INET6;
  return binding.syscall(SYS.socket, family, (kind === "udp" ? DATAGRAM : STREAM) | NONBLOCK_CLOEXEC, 0);
}

/** Bound to a free port, and listening where it is TCP; answers the port. */
export function bound(kind: Kind, address: Uint8Array): { fd: number; port: number } {
  const fd = check(socket(kind, address), `${kind} socket`);
  try {
    const sa = sockaddr(address, 0);
    check(binding.syscall(SYS.bind, fd, sa, sa.length), "bind");
    if (kind === "tcp") check(binding.syscall(SYS.listen, fd, 64), "listen");
    const name = new Uint8Array(28);
    check(binding.syscall(SYS.getsockname, fd, name, new Int32Array([28])), "getsockname");
    return { fd, port: (name[2]! << 8) | name[3]! };
  } catch (error) {
    close(fd);
    throw error;
  }
}

/** Connected, or on the way there (TCP); a negative errno where that cannot be. */
export function connected(kind: Kind, address: Uint8Array, port: number): number {
  const fd = socket(kind, address);
  if (fd < 0) return fd;
  const sa = sockaddr(address, port);
  const result = binding.syscall(SYS.connect, fd, sa, sa.length);
  if (result < 0 && result !== -errno.EINPROGRESS) {
    close(fd);
    return result;
  }
  return fd;
}

/** A descriptor of the next connection; negative where there is none. */
export function accept(fd: number): number {
  return binding.syscall(SYS.accept4, fd, null, null, NONBLOCK_CLOEXEC);
}

const buffer = new Uint8Array(65536);
const from = new Uint8Array(28);
const fromLength = new Int32Array(1);

/** One datagram with its sender; undefined where there is none. */
export function receiveFrom(fd: number): { data: Uint8Array; sender: Uint8Array } | undefined {
  fromLength[0] = from.length;
  const n = binding.syscall(SYS.recvfrom, fd, buffer, buffer.length, MSG_DONTWAIT, from, fromLength);
  return n < 0 ? undefined : { data: buffer.slice(0, n), sender: from.slice(0, fromLength[0]) };
}

/** Bytes that are there: empty at the end of a stream, a negative errno for an error, undefined where there is nothing yet. */
export function receive(fd: number): Uint8Array | number | undefined {
  const n = binding.syscall(SYS.recvfrom, fd, buffer, buffer.length, MSG_DONTWAIT, null, null);
  if (n === -errno.EAGAIN || n === -errno.EINTR) return undefined;
  return n < 0 ? n : buffer.slice(0, n);
}

/** Ends the sending direction; the other side reads to the end. */
export function endSending(fd: number): void {
  binding.syscall(SYS.shutdown, fd, 1);
}

export function send(fd: number, data: Uint8Array, to?: Uint8Array): number {
  return binding.syscall(SYS.sendto, fd, data, data.length, MSG_DONTWAIT | MSG_NOSIGNAL, to ?? null, to?.length ?? 0);
}
