// How a build goes, for Control.Status: all that was told since its beginning and what comes, to any number of clients, whenever they ask. What a step says is kept
// up to a limit, as BuildKit does.
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import type { BuildEvent, LogEvent, MissEvent, StatusEvent, VertexEvent, WarningEvent } from "../../build/index.ts";
import type { StatusResponseSchema } from "../../gen/moby/buildkit/v1_pb.ts";

import { sentenceOf } from "./errors.ts";

export type StatusUpdate = MessageInitShape<typeof StatusResponseSchema>;

/** Bytes of one vertex' output, and of all. */
const MAX_LOG = 2 << 20;
const MAX_LOGS = 64 << 20;
/** What one answer holds. */
const MAX_ANSWER = 1 << 20;
const STATUS_MS = 100;
/** So much is waited for more before an answer is sent. */
const GATHER_MS = 20;

export function timestamp(ms: number): Timestamp {
  const seconds = Math.floor(ms / 1000);
  return create(TimestampSchema, { seconds: BigInt(seconds), nanos: Math.min(999_999_999, Math.round((ms - seconds * 1000) * 1e6)) });
}

export interface Progress {
  tell(event: BuildEvent): void;
  /** All is told. What is unfinished is told as given up. */
  end(): void;
  /** Bytes that it holds, about. */
  size(): number;
  /** Steps that are known, completed, cached, and warnings. */
  counts(): { total: number; completed: number; cached: number; warnings: number };
  /** From the beginning until the end. */
  follow(signal: AbortSignal): AsyncGenerator<StatusUpdate>;
}

/** What can be followed: a build that is under way, or what is kept of one. */
export type Followed = Pick<Progress, "follow">;

function vertexOf(event: VertexEvent) {
  return {
    digest: event.digest,
    inputs: event.inputs,
    name: event.name,
    cached: event.cached,
    error: sentenceOf(event.error ?? ""),
    ...(event.started === undefined ? {} : { started: timestamp(event.started) }),
    ...(event.completed === undefined ? {} : { completed: timestamp(event.completed) }),
    ...(event.group ? { progressGroup: event.group } : {}),
  };
}

function statusOf(event: StatusEvent) {
  return {
    ID: event.id,
    vertex: event.vertex,
    name: event.name,
    current: BigInt(Math.round(event.current)),
    total: BigInt(Math.round(event.total)),
    timestamp: timestamp(event.time),
    started: timestamp(event.started),
    ...(event.completed === undefined ? {} : { completed: timestamp(event.completed) }),
  };
}

function logOf(event: LogEvent) {
  return { vertex: event.vertex, timestamp: timestamp(event.time), stream: BigInt(event.stream), msg: event.bytes };
}

function warningOf(event: WarningEvent) {
  return {
    vertex: event.vertex,
    level: BigInt(event.level),
    short: Buffer.from(event.short),
    detail: event.detail.map((line) => Buffer.from(line)),
    url: event.url,
    ranges: event.ranges,
    ...(event.source ? { info: event.source } : {}),
  };
}

/** BuildKit's protocol knows no misses; only clients that asked for them (jubako build --explain) get any, as warnings of a name of ours. */
function missWarning({ vertex, name, earlier }: MissEvent): WarningEvent {
  const detail = [JSON.stringify({ name, earlier: earlier !== undefined, changed: earlier?.changed ?? [] })];
  return { kind: "warning", vertex, level: 0, short: "jubako.miss", detail, url: "", source: undefined, ranges: [] };
}

const sizeOf = (event: BuildEvent): number => (event.kind === "log" ? event.bytes.length + 64 : 256);

export function createProgress(): Progress {
  const events: BuildEvent[] = [];
  const vertices = new Map<string, VertexEvent>();
  const statuses = new Map<string, number>();
  const logged = new Map<string, number>();
  let allLogged = 0;
  let ended = false;
  let warnings = 0;
  const waiting = new Set<() => void>();
  const wake = () => {
    for (const each of [...waiting]) each();
  };
  const add = (event: BuildEvent) => {
    events.push(event);
    wake();
  };

  function clipped(event: LogEvent): LogEvent | undefined {
    const before = logged.get(event.vertex) ?? 0;
    if (before > MAX_LOG || allLogged > MAX_LOGS) return undefined;
    logged.set(event.vertex, before + event.bytes.length);
    allLogged += event.bytes.length;
    if (before + event.bytes.length <= MAX_LOG) return event;
    const note = Buffer.from(`\n[output clipped, log limit ${MAX_LOG >> 20}MiB reached]\n`);
    logged.set(event.vertex, MAX_LOG + 1);
    return { ...event, bytes: Buffer.concat([event.bytes.subarray(0, MAX_LOG - before), note]) };
  }

  return {
    tell(event) {
      if (ended) return;
      if (event.kind === "vertex") {
        // Clients take each other beginning for a further run.
        const started = vertices.get(event.digest)?.started ?? event.started;
        const told = { ...event, started };
        vertices.set(event.digest, told);
        add(told);
      } else if (event.kind === "status") {
        const key = `${event.vertex} ${event.id}`;
        const now = performance.now();
        const last = statuses.get(key);
        if (event.completed === undefined && last !== undefined && now - last < STATUS_MS) return;
        statuses.set(key, now);
        add(event);
      } else if (event.kind === "log") {
        const kept = clipped(event);
        if (kept) add(kept);
      } else if (event.kind === "warning") {
        warnings++;
        add(event);
      } else if (event.kind === "miss") add(missWarning(event));
    },
    end() {
      if (ended) return;
      for (const vertex of vertices.values()) {
        if (vertex.started === undefined || vertex.completed !== undefined) continue;
        events.push({ ...vertex, completed: Date.now(), error: vertex.error ?? "context canceled: context canceled" });
      }
      ended = true;
      wake();
    },
    size: () => allLogged + events.length * 256,
    counts() {
      const all = [...vertices.values()];
      return {
        total: all.length,
        completed: all.filter(({ completed, error }) => completed !== undefined && error === undefined).length,
        cached: all.filter(({ cached }) => cached).length,
        warnings,
      };
    },
    async *follow(signal) {
      let at = 0;
      const more = (ms?: number) =>
        new Promise<void>((resolve) => {
          const timer = ms === undefined ? undefined : setTimeout(done, ms);
          function done() {
            clearTimeout(timer);
            waiting.delete(woken);
            signal.removeEventListener("abort", done);
            resolve();
          }
          // a pause for gathering ends early only at the end
          function woken() {
            if (ms === undefined || ended) done();
          }
          waiting.add(woken);
          if (signal.aborted) done();
          else signal.addEventListener("abort", done, { once: true });
        });
      while (!signal.aborted) {
        if (at === events.length) {
          if (ended) return;
          await more();
          continue;
        }
        if (!ended) await more(GATHER_MS);
        let size = 0;
        // Of the same thing within one answer only the last word counts.
        const last = new Map<string, BuildEvent>();
        const update = { logs: [] as ReturnType<typeof logOf>[], warnings: [] as ReturnType<typeof warningOf>[] };
        for (; at < events.length && size < MAX_ANSWER; at++) {
          const event = events[at]!;
          size += sizeOf(event);
          if (event.kind === "vertex") last.set(event.digest, event);
          else if (event.kind === "status") last.set(`${event.vertex} ${event.id}`, event);
          else if (event.kind === "log") update.logs.push(logOf(event));
          else if (event.kind === "warning") update.warnings.push(warningOf(event));
        }
        const kept = [...last.values()];
        yield {
          ...update,
          vertexes: kept.flatMap((event) => (event.kind === "vertex" ? [vertexOf(event)] : [])),
          statuses: kept.flatMap((event) => (event.kind === "status" ? [statusOf(event)] : [])),
        };
      }
    },
  };
}
