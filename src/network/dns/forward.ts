// Passing a question on to the resolvers of the host. Each upstream has a state of health, shared by all who ask: one that does not answer is
// left for last and only tried beside others, so that a dead first resolver costs nobody more than one short wait.
import { randomBytes } from "node:crypto";
import { close, EPOLLIN, EPOLLOUT, type Watch, watch } from "../../linux/index.ts";
import { parseAddress } from "../address.ts";
import { connected, type Kind, receive, send } from "../socket.ts";
import { answers, framed, frames, RCODE, rcodeOf } from "./message.ts";

export interface UpstreamHealth {
  server: string;
  /** Timeouts and errors since the last answer. */
  failures: number;
  /** Smoothed time to answer in milliseconds. */
  rtt: number;
  lastFailure: number;
}

export interface Forwarder {
  /** The first good answer of any of the servers; undefined where none answers within `DEADLINE`. */
  ask(query: Uint8Array, end: number, kind: Kind, servers: string[]): Promise<Uint8Array | undefined>;
  health(): UpstreamHealth[];
}

/** Below the five seconds that C libraries wait. */
const DEADLINE = 4000;
const SLOWEST_TURN = 1000;
const FASTEST_TURN = 150;
/** So many failures in a row make an upstream unhealthy; it is tried beside others again after this time. */
const UNHEALTHY = 2;
const RETRY = 3000;
const MAX_IN_FLIGHT = 1024;

export function createForwarder(port = 53): Forwarder {
  const states = new Map<string, UpstreamHealth>();
  let inFlight = 0;
  const stateOf = (server: string) => {
    let state = states.get(server);
    if (!state) {
      state = { server, failures: 0, rtt: 100, lastFailure: 0 };
      states.set(server, state);
    }
    return state;
  };

  /** One question to one upstream; calls back once, unless ended first. */
  function attempt(
    query: Uint8Array,
    end: number,
    kind: Kind,
    health: UpstreamHealth,
    done: (reply: Uint8Array | undefined) => void,
  ): { end(failed: boolean): void } {
    const start = performance.now();
    const own = query.slice();
    const id = randomBytes(2);
    own.set(id);
    let watching: Watch | undefined;
    const address = parseAddress(health.server);
    const fd = address ? connected(kind, address, port) : -1;
    let open = fd >= 0;
    const finish = () => {
      if (!open) return;
      open = false;
      watching?.close();
      close(fd);
    };
    const failed = () => {
      health.failures++;
      health.lastFailure = performance.now();
    };
    const settle = (reply: Uint8Array | undefined) => {
      if (!open && fd >= 0) return;
      finish();
      if (reply) {
        health.failures = 0;
        health.rtt += (performance.now() - start - health.rtt) / 4;
        reply.set(query.subarray(0, 2));
      } else failed();
      done(reply);
    };
    if (fd < 0) {
      queueMicrotask(() => settle(undefined));
      return { end() {} };
    }
    const take = (reply: Uint8Array) => {
      if (answers(own, end, reply)) settle(reply);
    };
    const cut = frames();
    let sent = kind === "udp";
    if (kind === "udp" && send(fd, own) < 0) queueMicrotask(() => settle(undefined));
    watching = watch(
      fd,
      kind === "udp" ? EPOLLIN : EPOLLOUT,
      () => {
        if (!open) return;
        if (!sent) {
          const message = framed(own);
          if (send(fd, message) !== message.length) return settle(undefined);
          sent = true;
          watching!.events(EPOLLIN);
          return;
        }
        const data = receive(fd);
        if (data === undefined) return;
        if (typeof data === "number" || (kind === "tcp" && data.length === 0)) return settle(undefined);
        if (kind === "udp") take(data);
        else for (const message of cut(data)) take(message);
      },
      { ref: false },
    );
    return {
      end(timedOut) {
        if (!open) return;
        if (timedOut) failed();
        finish();
      },
    };
  }

  return {
    ask(query, end, kind, servers) {
      if (inFlight >= MAX_IN_FLIGHT || servers.length === 0) return Promise.resolve(undefined);
      inFlight++;
      const now = performance.now();
      const all = servers.map(stateOf);
      const healthy = all.filter((s) => s.failures < UNHEALTHY);
      const sick = all.filter((s) => s.failures >= UNHEALTHY);
      // one of the sick is asked along with the first, to see whether it is well again
      const probe = healthy.length > 0 ? sick.find((s) => now - s.lastFailure > RETRY) : undefined;
      const order = [...healthy, ...sick.filter((s) => s !== probe)];
      return new Promise((resolve) => {
        const attempts: { end(failed: boolean): void; late: boolean }[] = [];
        let pending = 0;
        let next = 0;
        let bad: Uint8Array | undefined;
        let turn: NodeJS.Timeout | undefined;
        let settled = false;
        const settle = (reply: Uint8Array | undefined) => {
          if (settled) return;
          settled = true;
          inFlight--;
          clearTimeout(turn);
          clearTimeout(deadline);
          for (const a of attempts) a.end(a.late || reply === undefined);
          resolve(reply);
        };
        const deadline = setTimeout(() => settle(bad), DEADLINE);
        deadline.unref?.();
        const ask = (server: UpstreamHealth) => {
          pending++;
          const one = { late: false, end: (_failed: boolean) => {} };
          attempts.push(one);
          Object.assign(
            one,
            attempt(query, end, kind, server, (reply) => {
              pending--;
              const useful = reply && ![RCODE.serverFailure, RCODE.refused, RCODE.notImplemented].includes(rcodeOf(reply) as 2);
              if (useful) {
                settle(reply);
                return;
              }
              bad ??= reply;
              if (next < order.length) advance();
              else if (pending === 0) settle(bad);
            }),
          );
        };
        const advance = () => {
          clearTimeout(turn);
          const server = order[next++];
          if (!server || settled) return;
          ask(server);
          if (next < order.length) {
            const asked = attempts.at(-1)!;
            const overtake = () => {
              asked.late = true;
              advance();
            };
            turn = setTimeout(overtake, Math.min(SLOWEST_TURN, Math.max(FASTEST_TURN, server.rtt * 4)));
            turn.unref?.();
          }
        };
        if (probe) {
          probe.lastFailure = now;
          ask(probe);
        }
        advance();
      });
    },
    health: () => [...states.values()],
  };
}
