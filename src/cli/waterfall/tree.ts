// Spans of one trace as a tree, in the order in which things began.
import type { Span } from "../../trace/index.ts";

export interface Line {
  span: Span;
  depth: number;
  /** Milliseconds since the first span of the trace began. */
  start: number;
  /** Milliseconds. */
  length: number;
}

const ms = (ns: bigint) => Number(ns) / 1e6;

/** Every span once, children below their parents; a span whose parent is unknown stands at the root. */
export function lines(spans: readonly Span[]): Line[] {
  if (spans.length === 0) return [];
  const unique = new Map(spans.map((span) => [span.spanId, span]));
  const begin = (span: Span) => BigInt(span.startTimeUnixNano);
  let zero = begin(spans[0]!);
  for (const span of spans) if (begin(span) < zero) zero = begin(span);
  const children = new Map<string, Span[]>();
  const roots: Span[] = [];
  for (const span of unique.values()) {
    const parent = unique.get(span.parentSpanId);
    if (!parent || parent === span) roots.push(span);
    else children.set(parent.spanId, [...(children.get(parent.spanId) ?? []), span]);
  }
  const inOrder = (list: Span[]) => list.sort((a, b) => (begin(a) < begin(b) ? -1 : begin(a) > begin(b) ? 1 : order(a) - order(b)));
  const out: Line[] = [];
  const seen = new Set<Span>();
  const walk = (span: Span, depth: number) => {
    if (seen.has(span)) return;
    seen.add(span);
    out.push({ span, depth, start: ms(begin(span) - zero), length: ms(BigInt(span.endTimeUnixNano) - begin(span)) });
    for (const child of inOrder(children.get(span.spanId) ?? [])) walk(child, depth + 1);
  };
  for (const root of inOrder(roots)) walk(root, 0);
  return out;
}

/** Instructions of a tape say their number. */
function order(span: Span): number {
  return typeof span.attributes.index === "number" ? span.attributes.index : 0;
}

/** Time that each layer spent itself: a span's length without what its children cover. */
export function layerTimes(all: readonly Line[]): { layer: string; spans: number; ms: number }[] {
  const children = new Map<string, Line[]>();
  for (const line of all) children.set(line.span.parentSpanId, [...(children.get(line.span.parentSpanId) ?? []), line]);
  const totals = new Map<string, { layer: string; spans: number; ms: number }>();
  for (const line of all) {
    const end = line.start + line.length;
    let covered = 0;
    let reached = line.start;
    for (const child of (children.get(line.span.spanId) ?? []).sort((a, b) => a.start - b.start)) {
      const from = Math.max(reached, child.start);
      const to = Math.min(end, child.start + child.length);
      if (to > from) {
        covered += to - from;
        reached = to;
      }
    }
    const total = totals.get(line.span.layer) ?? { layer: line.span.layer, spans: 0, ms: 0 };
    total.spans++;
    total.ms += Math.max(0, line.length - covered);
    totals.set(line.span.layer, total);
  }
  return [...totals.values()];
}
