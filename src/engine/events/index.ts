// The engine's events: who listens gets them as they happen; the journal keeps the latest for `docker events --since`, also over a restart of
// the engine, in DATA/events.jsonl (at most two files of half a journal each).
import { appendFile, appendFileSync, readFileSync, rename, writeFileSync } from "node:fs";
import type { EventMessage } from "../../api/types.ts";
import { invalidArgument } from "../../lib/errors.ts";
import type { ContainerRecord, Engine, EventsFace } from "../context.ts";
import { formatNano, nanoNow, parseInstant } from "../logs/time.ts";
import type { Call, Route } from "../route.ts";
import { type Filters, matchLabels, parseFilters } from "./filter.ts";

export interface StoredEvent {
  type: NonNullable<EventMessage["Type"]>;
  action: string;
  id: string;
  attributes: Record<string, string>;
  /** Nanoseconds since 1970. */
  time: bigint;
}

/** Events that the journal keeps at least, once there were so many. dockerd keeps 256, in memory. */
const KEEP = 4096;
/** A start or an exec makes half a dozen events: written one by one, each would wake two threads while somebody waits for an answer. */
const FLUSH_MS = 25;

interface Line {
  t: string;
  y: StoredEvent["type"];
  a: string;
  i: string;
  m: Record<string, string>;
}

function readLines(path: string): StoredEvent[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return [];
  }
  const events: StoredEvent[] = [];
  for (const line of text.split("\n")) {
    if (line === "") continue;
    try {
      const { t, y, a, i, m } = JSON.parse(line) as Line;
      events.push({ type: y, action: a, id: i, attributes: m, time: BigInt(t) });
    } catch {
      // a line torn by a kill
    }
  }
  return events;
}

export function createEvents(engine: Pick<Engine, "config" | "log">): EventsFace {
  const path = `${engine.config.dataRoot}/events.jsonl`;
  const listeners = new Set<(event: StoredEvent) => void>();
  const current = readLines(path);
  let inFile = current.length;
  const journal = [...readLines(`${path}.1`), ...current];
  let pending = "";
  let writing = false;

  function flush(): void {
    if (writing || pending === "") return;
    writing = true;
    const lines = pending;
    pending = "";
    const append = () =>
      appendFile(path, lines, { mode: 0o600 }, (error) => {
        writing = false;
        if (error) engine.log("warn", "event journal cannot be written", { error: error.message });
        flush();
      });
    if (inFile < KEEP) {
      append();
      return;
    }
    inFile = 0;
    rename(path, `${path}.1`, () => append());
  }

  function keep(event: StoredEvent): void {
    journal.push(event);
    if (journal.length >= 2 * KEEP) journal.splice(0, KEEP);
    const line: Line = { t: event.time.toString(), y: event.type, a: event.action, i: event.id, m: event.attributes };
    if (pending === "") setTimeout(flush, FLUSH_MS);
    pending += `${JSON.stringify(line)}\n`;
    inFile++;
  }

  process.once("exit", () => {
    try {
      if (pending !== "") appendFileSync(path, pending, { mode: 0o600 });
    } catch {
      // the journal is a convenience
    }
  });

  // A torn last line must not swallow the next one.
  if (inFile > 0 && !readFileSync(path, "utf8").endsWith("\n")) writeFileSync(path, "\n", { flag: "a" });

  return {
    publish(type, action, id, attributes) {
      const event: StoredEvent = { type, action, id, attributes, time: nanoNow() };
      keep(event);
      for (const listener of listeners) listener(event);
    },
    containerAttributes: (record: ContainerRecord) => ({ ...record.config.Labels, image: record.config.Image ?? "", name: record.name }),
    listen(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    listeners: () => listeners.size,
    journal: () => journal,
  };
}

const KNOWN = [
  "config",
  "container",
  "daemon",
  "event",
  "image",
  "label",
  "network",
  "node",
  "plugin",
  "scope",
  "secret",
  "service",
  "type",
  "volume",
];

function withoutTag(reference: string): string {
  const cut = reference.lastIndexOf(":");
  return cut > reference.lastIndexOf("/") ? reference.slice(0, cut) : reference;
}

/** Whether an event passes, as dockerd's filter: an exact action, or the part before ":"; ids and names by prefix; images with or without tag. */
export function passes(event: StoredEvent, filters: Filters): boolean {
  const any = (name: string, test: (value: string) => boolean) => {
    const values = filters.get(name);
    return !values || values.length === 0 || values.some(test);
  };
  const named = (type: StoredEvent["type"]) =>
    any(type, (value) => event.type === type && (event.id.startsWith(value) || (event.attributes.name ?? "").startsWith(value)));
  const image = event.type === "image" ? (event.attributes.name ?? "") : (event.attributes.image ?? "");
  return (
    any("event", (value) => event.action === value || event.action.startsWith(`${value}:`)) &&
    any("type", (value) => event.type === value) &&
    any("scope", (value) => value === "local") &&
    named("container") &&
    named("network") &&
    named("volume") &&
    named("daemon") &&
    named("plugin") &&
    any("image", (value) => [event.id, image, withoutTag(event.id), withoutTag(image)].includes(value)) &&
    matchLabels(filters.get("label"), event.attributes)
  );
}

/** The event as a JSON line; API versions below 1.52 have the old fields as well. */
export function eventLine(event: StoredEvent, version: number): string {
  const old =
    version < 52 && (event.type === "container" || event.type === "image")
      ? {
          status: event.action,
          id: event.id,
          ...(event.type === "container" && event.attributes.image ? { from: event.attributes.image } : {}),
        }
      : {};
  const message = { ...old, Type: event.type, Action: event.action, Actor: { ID: event.id, Attributes: event.attributes }, scope: "local" };
  // timeNano does not fit a double.
  return `${JSON.stringify(message).slice(0, -1)},"time":${event.time / 1_000_000_000n},"timeNano":${event.time}}\n`;
}

async function* stream(
  engine: Engine,
  call: Call,
  filters: Filters,
  since: bigint | undefined,
  until: bigint | undefined,
): AsyncGenerator<string> {
  const queue: StoredEvent[] = [];
  let wake: (() => void) | undefined;
  const stop = () => wake?.();
  const forget = engine.events.listen((event) => {
    queue.push(event);
    wake?.();
  });
  if (since !== undefined) queue.push(...engine.events.journal().filter((event) => event.time >= since));
  const left = until === undefined ? undefined : Number((until - nanoNow()) / 1_000_000n);
  let over = left !== undefined && left <= 0;
  const timer =
    left === undefined || over
      ? undefined
      : setTimeout(
          () => {
            over = true;
            stop();
          },
          Math.min(left, 2 ** 31 - 1),
        );
  call.signal.addEventListener("abort", stop);
  engine.signal.addEventListener("abort", stop);
  try {
    for (;;) {
      let lines = "";
      for (const event of queue.splice(0)) {
        if ((until === undefined || event.time <= until) && passes(event, filters)) lines += eventLine(event, call.version);
      }
      if (lines !== "") yield lines;
      if (over || call.signal.aborted || engine.signal.aborted) return;
      if (queue.length > 0) continue;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      wake = undefined;
    }
  } finally {
    forget();
    clearTimeout(timer);
    call.signal.removeEventListener("abort", stop);
    engine.signal.removeEventListener("abort", stop);
  }
}

export function routes(engine: Engine): Route[] {
  return [
    {
      method: "GET",
      path: "/events",
      handle(call) {
        const since = parseInstant(call.query.get("since"));
        // 1970 is an end too, as for dockerd: what comes after it is not waited for
        const until = call.query.get("until") === "0" ? 0n : parseInstant(call.query.get("until"));
        if (since !== undefined && until !== undefined && until < since) {
          throw invalidArgument(`\`since\` (${formatNano(since)}) cannot be after \`until\` (${formatNano(until)})`);
        }
        const filters = parseFilters(call.query.get("filters"), KNOWN);
        return { type: "application/json", stream: stream(engine, call, filters, since, until) };
      },
    },
  ];
}
