// One causal trace from the command to the first instruction of the user's program. Every layer passes the W3C trace context on (HTTP
// header `traceparent`, gRPC and ttrpc metadata of the same name) together with `jubako-trace-dir`, the directory where each process appends
// its spans as JSON lines to TRACEID.jsonl. Off, which is the default, it costs one look at an empty AsyncLocalStorage.
//
//   await entering(fromHeaders(headers), "engine", () => span("POST /containers/create", { id }, async () => { … }));
//   const metadata = toHeaders();      // what to send to the next layer: empty where no trace is active
import { AsyncLocalStorage } from "node:async_hooks";
import { appendFile, appendFileSync } from "node:fs";

export interface Context {
  /** 32 hex digits. */
  traceId: string;
  /** 16 hex digits: the span that encloses what runs now. */
  spanId: string;
  /** Directory of the span files; undefined where spans of this process are not kept. */
  dir: string | undefined;
  /** Name of the layer that records: cli, engine, manager, shim, runtime. */
  layer: string;
}

export type Attributes = Record<string, string | number | boolean>;

/** A finished span as it stands in the file; times in nanoseconds since 1970 as decimal strings. */
export interface Span {
  traceId: string;
  spanId: string;
  parentSpanId: string;
  layer: string;
  name: string;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: Attributes;
  error?: string;
}

export const TRACEPARENT = "traceparent";
export const TRACE_DIR = "jubako-trace-dir";

/**
 * Whether a caller wants spans kept: our command line names a directory, others say so in `tracestate` (W3C trace context, 3.3), as `jubako=on`. A sampled
 * `traceparent` alone is no wish: clients like buildx send one with every request.
 */
export function wantsSpans(get: (name: string) => string | null | undefined): boolean {
  return Boolean(get(TRACE_DIR)) || /(?:^|,)\s*jubako=/.test(get("tracestate") ?? "");
}

const storage = new AsyncLocalStorage<Context>();
let used = false;

/** The active context, or undefined: then no one traces. */
export function active(): Context | undefined {
  return used ? storage.getStore() : undefined;
}

/** Nanoseconds since 1970. */
export function now(): bigint {
  return BigInt(Math.round((performance.timeOrigin + performance.now()) * 1e6));
}

/** Not by node:crypto, which takes a millisecond to load. */
function randomHex(bytes: number): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString("hex");
}

export function newTrace(dir: string | undefined, layer: string): Context {
  return { traceId: randomHex(16), spanId: randomHex(8), dir, layer };
}

/** The context that a caller sent (https://www.w3.org/TR/trace-context/), or undefined where there is none, or it is malformed or not sampled. */
export function fromHeaders(get: (name: string) => string | null | undefined, layer: string, ownDir?: string): Context | undefined {
  const header = get(TRACEPARENT);
  if (!header) return undefined;
  const match = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(header);
  if (!match || /^0+$/.test(match[1]!) || /^0+$/.test(match[2]!) || (Number.parseInt(match[3]!, 16) & 1) === 0) return undefined;
  return { traceId: match[1]!, spanId: match[2]!, dir: ownDir ?? get(TRACE_DIR) ?? undefined, layer };
}

/** What to send to the next layer; empty where no trace is active. */
export function toHeaders(context: Context | undefined = active()): Record<string, string> {
  if (!context) return {};
  const headers: Record<string, string> = { [TRACEPARENT]: `00-${context.traceId}-${context.spanId}-01` };
  if (context.dir) headers[TRACE_DIR] = context.dir;
  return headers;
}

/** Runs `fn` inside `context`; where it is undefined, just runs it. */
export function entering<T>(context: Context | undefined, fn: () => T): T {
  if (!context) return fn();
  used = true;
  return storage.run(context, fn);
}

/** Keeps a span that was measured elsewhere (a tape's instructions, for instance). */
export function record(
  context: Context,
  name: string,
  start: bigint,
  end: bigint,
  attributes: Attributes = {},
  parentSpanId = context.spanId,
  error?: string,
): string {
  const spanId = randomHex(8);
  keep(context, spanId, parentSpanId, name, start, end, attributes, error);
  return spanId;
}

function keep(
  context: Context,
  spanId: string,
  parentSpanId: string,
  name: string,
  start: bigint,
  end: bigint,
  attributes: Attributes,
  error?: string,
): void {
  if (!context.dir) return;
  const span: Span = {
    traceId: context.traceId,
    spanId,
    parentSpanId,
    layer: context.layer,
    name,
    startTimeUnixNano: start.toString(),
    endTimeUnixNano: end.toString(),
    attributes,
    ...(error === undefined ? {} : { error }),
  };
  pending.push([`${context.dir}/${context.traceId}.jsonl`, `${JSON.stringify(span)}\n`]);
  if (pending.length === 1) setImmediate(flushSoon);
}

const pending: [file: string, line: string][] = [];

function drain(write: (file: string, lines: string) => void): void {
  const files = new Map<string, string>();
  for (const [file, line] of pending.splice(0)) files.set(file, (files.get(file) ?? "") + line);
  for (const [file, lines] of files) write(file, lines);
}

function flushSoon(): void {
  drain((file, lines) => appendFile(file, lines, () => {}));
}

/** Writes what is still in memory; for a process about to exit. */
export function flush(): void {
  drain((file, lines) => {
    try {
      appendFileSync(file, lines);
    } catch {
      // a trace that can't be kept must not fail what it watches
    }
  });
}

/** Measures `fn` as a span of the active trace, with the spans begun inside as its children; where no trace is active, just runs it. */
export function span<T>(name: string, attributes: Attributes, fn: () => T): T {
  const parent = active();
  if (!parent) return fn();
  const context: Context = { ...parent, spanId: randomHex(8) };
  const start = now();
  const end = (error?: string) => keep(parent, context.spanId, parent.spanId, name, start, now(), attributes, error);
  try {
    const result = storage.run(context, fn);
    if (result instanceof Promise) {
      return result.then(
        (value) => {
          end();
          return value;
        },
        (error) => {
          end(String(error));
          throw error;
        },
      ) as T;
    }
    end();
    return result;
  } catch (error) {
    end(String(error));
    throw error;
  }
}
