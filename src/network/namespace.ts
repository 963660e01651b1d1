// Network namespaces for containers, some of them ready ahead of need: loopback up, IPv6 off on new links, a netlink socket inside.
// A namespace is only a descriptor of this process: if the process dies before a container lives in it, the kernel removes it and its veths.
import { writeFileSync } from "node:fs";
import {
  close,
  inNetns,
  makeNetns,
  NETLINK_ROUTE,
  type NetlinkSocket,
  netlinkMessages,
  netnsOf,
  openNetlink,
  setLinkUp,
} from "../linux/index.ts";

export interface Namespace {
  readonly fd: number;
  /** rtnetlink inside the namespace. It holds the namespace as the descriptor does. */
  readonly route: NetlinkSocket;
  /** Lets go; what nobody lives in vanishes. */
  close(): void;
}

export interface NamespacePool {
  take(): Namespace;
  close(): void;
}

function namespace(fd: number, route: NetlinkSocket): Namespace {
  let open = true;
  return {
    fd,
    route,
    close() {
      if (!open) return;
      open = false;
      route.close();
      close(fd);
    },
  };
}

function make(): Namespace {
  let route: NetlinkSocket | undefined;
  const fd = makeNetns(() => {
    try {
      writeFileSync("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    } catch {
      // a kernel without IPv6
    }
    route = openNetlink(NETLINK_ROUTE);
    const m = netlinkMessages(64);
    setLinkUp(m, { index: 1 });
    route.request(m);
  });
  return namespace(fd, route!);
}

/** The namespace a process lives in. */
export function namespaceOf(pid: number): Namespace {
  const fd = netnsOf(pid);
  try {
    return namespace(
      fd,
      inNetns(fd, () => openNetlink(NETLINK_ROUTE)),
    );
  } catch (error) {
    close(fd);
    throw error;
  }
}

/** Keeps up to `size` namespaces ready, refilled one by one when the event loop is idle. 0: each is made when taken. */
export function createNamespacePool(size: number): NamespacePool {
  const ready: Namespace[] = [];
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  const refill = () => {
    timer = undefined;
    if (closed || ready.length >= size) return;
    try {
      ready.push(make());
    } catch {
      return; // the next take tries again, and says why
    }
    schedule();
  };
  const schedule = () => {
    if (closed || timer || ready.length >= size) return;
    timer = setTimeout(refill, 20);
    timer.unref();
  };
  schedule();
  return {
    take() {
      const taken = ready.pop() ?? make();
      schedule();
      return taken;
    },
    close() {
      closed = true;
      clearTimeout(timer);
      for (const one of ready.splice(0)) one.close();
    },
  };
}
