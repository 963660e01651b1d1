// Ports of the host: each published one is a bound socket of this process, so that a conflict shows at once and nobody takes the port later.
// The packets never reach these sockets; the packet filter sends them on. Nothing listens in userland, no process per port.
import { readFileSync } from "node:fs";
import { binding, close, errno, errnoText, SYS } from "../linux/index.ts";
import { formatAddress } from "./address.ts";
import { sockaddr } from "./socket.ts";

export type Protocol = "tcp" | "udp" | "sctp";

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK = { tcp: 1, udp: 2, sctp: 1 } as const;
const IPPROTO_SCTP = 132;
const NONBLOCK_CLOEXEC = 0o4000 | 0o2000000;
const ESOCKTNOSUPPORT = 94;

/** A bound port: hold it as long as it is published. */
export interface BoundPort {
  readonly port: number;
  /** The addresses it is bound on, and the sockets, in the same order; listening where TCP. They stay this object's. */
  readonly bound: Uint8Array[];
  readonly fds: number[];
  close(): void;
}

/** Binds; a negative errno where that fails. */
function bind(protocol: Protocol, address: Uint8Array, port: number): number {
  const v4 = address.length === 4;
  const fd = binding.syscall(
    SYS.socket,
    v4 ? AF_INET : AF_INET6,
    SOCK[protocol] | NONBLOCK_CLOEXEC,
    protocol === "sctp" ? IPPROTO_SCTP : 0,
  );
  if (fd < 0) return fd;
  const one = new Int32Array([1]);
  if (!v4) binding.syscall(SYS.setsockopt, fd, 41, 26, one, 4); // IPV6_V6ONLY
  // connections in TIME_WAIT don't matter; a listener, or another holder that listens, does
  if (protocol === "tcp") binding.syscall(SYS.setsockopt, fd, 1, 2, one, 4); // SO_REUSEADDR
  const sa = sockaddr(address, port);
  let result = binding.syscall(SYS.bind, fd, sa, sa.length);
  if (result >= 0 && protocol === "tcp") result = binding.syscall(SYS.listen, fd, 128);
  if (result >= 0) return fd;
  close(fd);
  return result;
}

let ephemeral: { first: number; last: number; next: number } | undefined;

function ephemeralRange(): { first: number; last: number; next: number } {
  if (ephemeral) return ephemeral;
  let first = 32768;
  let last = 60999;
  try {
    const match = /^(\d+)\s+(\d+)/.exec(readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "latin1"));
    if (match) {
      first = Number(match[1]);
      last = Number(match[2]);
    }
  } catch {
    // the kernel's defaults, then
  }
  ephemeral = { first, last, next: first };
  return ephemeral;
}

export type PortError = { port: number; address: Uint8Array; errno: number };

/**
 * Binds one port on all the given addresses of the host: the first of `from`…`to` that is free on each (0: any of the ephemeral range, round robin).
 * Addresses whose family this host lacks are left out of `bound`.
 */
export function bindPort(protocol: Protocol, addresses: Uint8Array[], from: number, to = from): BoundPort | PortError {
  const range = from === 0 ? ephemeralRange() : { first: from, last: to, next: from };
  const count = range.last - range.first + 1;
  let failure: PortError = { port: from, address: addresses[0]!, errno: errno.EADDRINUSE };
  for (let i = 0; i < count; i++) {
    const port = range.next;
    range.next = port >= range.last ? range.first : port + 1;
    const fds: number[] = [];
    const bound: Uint8Array[] = [];
    let failed = false;
    for (const address of addresses) {
      const fd = bind(protocol, address, port);
      if (fd >= 0) {
        fds.push(fd);
        bound.push(address);
      } else if (fd === -errno.EAFNOSUPPORT || (address.length === 16 && fd === -errno.EADDRNOTAVAIL && address.every((b) => b === 0))) {
        // no IPv6 here
      } else if (fd === -errno.EPROTONOSUPPORT || fd === -ESOCKTNOSUPPORT) {
        fds.push(-1);
        bound.push(address); // SCTP is not in this kernel as a socket, but may be forwarded
      } else {
        failure = { port, address, errno: -fd };
        failed = true;
        break;
      }
    }
    if (failed || bound.length === 0) {
      for (const fd of fds) close(fd);
      if (failure.errno !== errno.EADDRINUSE) return failure;
      continue;
    }
    let open = true;
    return {
      port,
      bound,
      fds,
      close() {
        if (!open) return;
        open = false;
        for (const fd of fds) close(fd);
      },
    };
  }
  return failure;
}

/** "0.0.0.0:80", "[::]:80". */
export function hostPort(address: Uint8Array, port: number): string {
  return address.length === 4 ? `${formatAddress(address)}:${port}` : `[${formatAddress(address)}]:${port}`;
}

/** What the kernel said, in the words that Go's net package (and so Docker) uses. */
export function bindText(protocol: Protocol, error: PortError): string {
  const text = error.errno === errno.EADDRINUSE ? "address already in use" : errnoText(error.errno);
  return `listen ${protocol}${error.address.length === 4 ? "4" : "6"} ${hostPort(error.address, error.port)}: bind: ${text}`;
}
