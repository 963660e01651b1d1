// Times as --since and --until take them.
import { parseDuration } from "./units.ts";

/**
 * Seconds since 1970, with nine digits of a fraction, of a duration before now ("42m"), an RFC 3339 time, a date, or such seconds themselves.
 * Local time where no zone is said.
 */
export function timestamp(text: string, complaint = "invalid time", now = Date.now()): string {
  try {
    return seconds(BigInt(Math.round(now * 1e6)) - BigInt(parseDuration(text)));
  } catch {}
  const match = /^(\d{4}-\d\d-\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?)?(Z|[+-]\d\d:\d\d)?$/.exec(text);
  if (match) {
    const [, day, hours = "00", minutes = "00", secs = "00", fraction = "", zone = ""] = match;
    const date = new Date(`${day}T${hours}:${minutes}:${secs}${zone}`);
    if (!Number.isNaN(date.getTime())) return `${Math.floor(date.getTime() / 1000)}.${fraction.padEnd(9, "0")}`;
  }
  if (/^-?\d+(\.\d+)?$/.test(text)) return text;
  throw new Error(`${complaint}: failed to parse value as time or duration: ${JSON.stringify(text)}`);
}

function seconds(ns: bigint): string {
  return `${ns / 1_000_000_000n}.${String(ns % 1_000_000_000n).padStart(9, "0")}`;
}
