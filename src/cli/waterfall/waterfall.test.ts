import { expect, test } from "bun:test";
import type { Span } from "../../trace/index.ts";
import { otlp } from "./otlp.ts";
import { render } from "./render.ts";
import { layerTimes, lines } from "./tree.ts";

const span = (spanId: string, parentSpanId: string, layer: string, name: string, start: number, end: number, error?: string): Span => ({
  traceId: "t",
  spanId,
  parentSpanId,
  layer,
  name,
  startTimeUnixNano: String(1_700_000_000_000_000_000n + BigInt(start * 1e6)),
  endTimeUnixNano: String(1_700_000_000_000_000_000n + BigInt(end * 1e6)),
  attributes: { index: 1, why: "because", half: 0.5, on: true },
  ...(error ? { error } : {}),
});

const spans = [
  span("c", "b", "shim", "Create", 4, 6),
  span("a", "0", "cli", "jubako run", 0, 10),
  span("b", "a", "engine", "POST /containers/create", 2, 8, "no such image"),
  span("x", "gone", "runtime", "orphan", 5, 5),
];

test("the tree", () => {
  expect(lines(spans).map(({ span, depth }) => `${depth}${span.name}`)).toEqual([
    "0jubako run",
    "1POST /containers/create",
    "2Create",
    "0orphan",
  ]);
  expect(layerTimes(lines(spans))).toEqual([
    { layer: "cli", spans: 1, ms: 4 },
    { layer: "engine", spans: 1, ms: 4 },
    { layer: "shim", spans: 1, ms: 2 },
    { layer: "runtime", spans: 1, ms: 0 },
  ]);
  expect(lines([])).toEqual([]);
});

test("the picture", () => {
  const text = render(lines(spans), { title: "trace t", width: 100, color: false });
  expect(text).toContain("    2.000     6.000  engine     POST /containers/create");
  expect(text).toContain("✗ no such image");
  expect(text).toContain("10.00 ms in all");
  const bar = text.split("\n").find((line) => line.includes("jubako run"))!;
  expect(bar).toContain("█".repeat(20));
});

test("OpenTelemetry's JSON", () => {
  const out = otlp(spans, "1") as {
    resourceSpans: { resource: { attributes: { value: unknown }[] }; scopeSpans: { spans: Record<string, unknown>[] }[] }[];
  };
  expect(out.resourceSpans.map((r) => r.resource.attributes[0]!.value)).toEqual([
    { stringValue: "jubako-shim" },
    { stringValue: "jubako-cli" },
    { stringValue: "jubako-engine" },
    { stringValue: "jubako-runtime" },
  ]);
  const root = out.resourceSpans[1]!.scopeSpans[0]!.spans[0]!;
  expect(root).not.toHaveProperty("parentSpanId");
  expect(root.attributes).toContainEqual({ key: "half", value: { doubleValue: 0.5 } });
  expect(out.resourceSpans[2]!.scopeSpans[0]!.spans[0]!.status).toEqual({ code: 2, message: "no such image" });
});
