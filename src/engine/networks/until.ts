// The `until` of prune: an instant (seconds since 1970, RFC 3339, a date) or a duration in Go's notation back from now.
import { invalidArgument } from "../../lib/errors.ts";
import { parseInstant } from "../logs/time.ts";

const UNIT: Record<string, number> = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Milliseconds since 1970. InvalidArgument where malformed. */
export function parseUntil(text: string): number {
  if (/^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$/.test(text)) {
    let back = 0;
    for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)) back += Number(amount) * UNIT[unit!]!;
    return Date.now() - back;
  }
  const instant = parseInstant(text);
  if (instant !== undefined) return Number(instant / 1_000_000n);
  const local = /^\d{4}-\d\d-\d\d(T\d\d(:\d\d(:\d\d(\.\d+)?)?)?)?$/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(local)) throw invalidArgument(`invalid filter 'until=${text}'`);
  return local;
}
