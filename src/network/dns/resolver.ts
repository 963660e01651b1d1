// The resolver of one network namespace, at 127.0.0.11 as Docker's. Its sockets are inside the namespace on ports the kernel chose, so that port
// 53 stays free for the container's own programs; two stateless rules there exchange the ports. Without connection tracking: it costs the
// container's other packets nothing.
import {
  close,
  closeApart,
  compare,
  EPOLLIN,
  HOOK,
  immediate,
  inNetns,
  NETLINK_NETFILTER,
  NFPROTO_IPV4,
  nftTransaction,
  openNetlink,
  payload,
  portField,
  setPayload,
  type Watch,
  watch,
} from "../../linux/index.ts";
import { accept, bound, type Kind, receive, receiveFrom, send } from "../socket.ts";
import type { Forwarder } from "./forward.ts";
import { framed, frames, isInternet, parseQuery, pointer, RCODE, reply, reverseAddress, TYPE } from "./message.ts";

export const RESOLVER_ADDRESS = Uint8Array.of(127, 0, 0, 11);
const DNS = portField(53);
const MAX_CONNECTIONS = 64;
const IDLE = 10_000;

/** What this namespace's names are; asked anew for each question. */
export interface Names {
  /** Addresses of a name; undefined where it is not ours to answer. */
  forward(name: string): Uint8Array[] | undefined;
  /** The name of an address. */
  reverse(address: Uint8Array): string | undefined;
  /** Where everything else is asked; empty: nowhere. */
  upstreams(): string[];
}

export interface Resolver {
  close(): void;
}

/** Exchanges 53 and the sockets' ports for what goes to and comes from 127.0.0.11; replies after connection tracking, should there be any. */
function redirect(udp: number, tcp: number): void {
  const nft = openNetlink(NETLINK_NETFILTER);
  try {
    const t = nftTransaction(nft, NFPROTO_IPV4, "jubako_dns");
    t.replaceTable(true);
    t.baseChain("ask", "filter", HOOK.output, -300);
    t.baseChain("answer", "filter", HOOK.input, 300);
    for (const [protocol, port, checksum] of [
      [17, udp, 6],
      [6, tcp, 16],
    ] as const) {
      const own = (at: number) => [
        payload("network", at, 4),
        compare("eq", RESOLVER_ADDRESS),
        payload("network", 9, 1),
        compare("eq", Uint8Array.of(protocol)),
      ];
      t.rule(
        "ask",
        own(16),
        payload("transport", 2, 2),
        compare("eq", DNS),
        immediate(portField(port)),
        setPayload("transport", 2, 2, checksum),
      );
      t.rule(
        "answer",
        own(12),
        payload("transport", 0, 2),
        compare("eq", portField(port)),
        immediate(DNS),
        setPayload("transport", 0, 2, checksum),
      );
    }
    t.commit();
  } finally {
    // closing waits for the kernel to have thrown away what a transaction replaced: milliseconds, so it happens on a worker thread
    closeApart(nft.fd);
  }
}

/** Starts answering inside the namespace behind `netns` (the descriptor stays the caller's). The sockets hold the namespace until `close`. */
export function createResolver(netns: number, names: Names, forwarder: Forwarder): Resolver {
  const { udp, tcp } = inNetns(netns, () => {
    const udp = bound("udp", RESOLVER_ADDRESS);
    try {
      const tcp = bound("tcp", RESOLVER_ADDRESS);
      try {
        redirect(udp.port, tcp.port);
      } catch (error) {
        close(tcp.fd);
        throw error;
      }
      return { udp, tcp };
    } catch (error) {
      close(udp.fd);
      throw error;
    }
  });

  function answer(query: Uint8Array, kind: Kind, respond: (message: Uint8Array) => void): void {
    const question = parseQuery(query);
    if (!question) {
      if (query.length >= 12 && !(query[2]! & 0x80)) respond(reply(query, undefined, RCODE.formatError));
      return;
    }
    if (isInternet(question)) {
      if (question.type === TYPE.PTR) {
        const address = reverseAddress(question.name);
        const name = address && names.reverse(address);
        if (name) {
          respond(reply(query, question, RCODE.ok, [pointer(name)]));
          return;
        }
      } else {
        const found = names.forward(question.name);
        if (found) {
          const length = question.type === TYPE.A ? 4 : question.type === TYPE.AAAA ? 16 : 0;
          const records = found.filter((a) => a.length === length).map((data) => ({ type: question.type, data }));
          respond(reply(query, question, RCODE.ok, records));
          return;
        }
      }
    }
    forwarder
      .ask(query, question.end, kind, names.upstreams())
      .catch(() => undefined)
      .then((found) => respond(found ?? reply(query, question, RCODE.serverFailure)));
  }

  let open = true;
  const connections = new Set<() => void>();
  const watches: Watch[] = [
    watch(
      udp.fd,
      EPOLLIN,
      () => {
        for (let i = 0; i < 64; i++) {
          const got = receiveFrom(udp.fd);
          if (!got) break;
          answer(got.data, "udp", (message) => {
            if (open) send(udp.fd, message, got.sender);
          });
        }
      },
      { ref: false },
    ),
    watch(
      tcp.fd,
      EPOLLIN,
      () => {
        const fd = accept(tcp.fd);
        if (fd < 0) return;
        if (connections.size >= MAX_CONNECTIONS) return close(fd);
        serve(fd);
      },
      { ref: false },
    ),
  ];

  function serve(fd: number): void {
    let alive = true;
    const end = () => {
      if (!alive) return;
      alive = false;
      clearTimeout(timer);
      connections.delete(end);
      watching.close();
      close(fd);
    };
    const timer = setTimeout(end, IDLE);
    timer.unref();
    connections.add(end);
    const cut = frames();
    const watching = watch(
      fd,
      EPOLLIN,
      () => {
        const data = receive(fd);
        if (data === undefined) return;
        if (typeof data === "number" || data.length === 0) return end();
        timer.refresh();
        for (const query of cut(data))
          answer(query, "tcp", (message) => {
            if (!alive) return;
            const bytes = framed(message);
            if (send(fd, bytes) !== bytes.length) end();
          });
      },
      { ref: false },
    );
  }

  return {
    close() {
      if (!open) return;
      open = false;
      for (const w of watches) w.close();
      for (const end of [...connections]) end();
      close(udp.fd);
      close(tcp.fd);
    },
  };
}
