// Spans in the JSON form of OpenTelemetry's protocol (https://github.com/open-telemetry/opentelemetry-proto, trace/v1): a resource a layer.
import type { Span } from "../../trace/index.ts";

type AnyValue = { stringValue: string } | { intValue: string } | { doubleValue: number } | { boolValue: boolean };

function value(v: string | number | boolean): AnyValue {
  if (typeof v === "string") return { stringValue: v };
  if (typeof v === "boolean") return { boolValue: v };
  return Number.isInteger(v) ? { intValue: String(v) } : { doubleValue: v };
}

const attributes = (record: Record<string, string | number | boolean>) =>
  Object.entries(record).map(([key, v]) => ({ key, value: value(v) }));

export function otlp(spans: readonly Span[], version: string): unknown {
  const layers = Map.groupBy(spans, (span) => span.layer);
  return {
    resourceSpans: [...layers].map(([layer, own]) => ({
      resource: { attributes: attributes({ "service.name": `jubako-${layer}` }) },
      scopeSpans: [
        {
          scope: { name: "jubako", version },
          spans: own.map((span) => ({
            traceId: span.traceId,
            spanId: span.spanId,
            ...(/^0*$/.test(span.parentSpanId) ? {} : { parentSpanId: span.parentSpanId }),
            name: span.name,
            // Internal; a request of the CLI is a client's.
            kind: layer === "cli" && /^[A-Z]+ \//.test(span.name) ? 3 : 1,
            startTimeUnixNano: span.startTimeUnixNano,
            endTimeUnixNano: span.endTimeUnixNano,
            attributes: attributes(span.attributes),
            status: span.error === undefined ? {} : { code: 2, message: span.error },
          })),
        },
      ],
    })),
  };
}
