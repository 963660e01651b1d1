// Instants in nanoseconds since 1970, as Go prints and reads them: RFC 3339 with up to nine digits of fraction, trailing zeros dropped.

let last = 0n;

/** Now, later than any instant given before, so that log entries keep their order by time. */
export function nanoNow(): bigint {
  const now = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1e3)) * 1000n;
  last = now > last ? now : last + 1n;
  return last;
}

let second = -1n;
let secondText = "";

/** "2026-01-02T03:04:05.6Z" (time.RFC3339Nano, UTC); with `fixed`, always nine digits, as `docker logs --timestamps` prints. */
export function formatNano(instant: bigint, fixed = false): string {
  const whole = instant / 1_000_000_000n;
  if (whole !== second) {
    second = whole;
    secondText = new Date(Number(whole) * 1000).toISOString().slice(0, 19);
  }
  const rest = Number(instant - whole * 1_000_000_000n);
  const digits = rest.toString().padStart(9, "0");
  if (fixed) return `${secondText}.${digits}Z`;
  if (rest === 0) return `${secondText}Z`;
  let end = 9;
  while (digits.charCodeAt(end - 1) === 48) end--;
  return `${secondText}.${digits.slice(0, end)}Z`;
}

/** The instant of an RFC 3339 time; undefined where it is none. */
export function parseNano(text: string): bigint | undefined {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)$/.exec(text);
  if (!match) return undefined;
  const whole = Date.parse(`${match[1]}${match[3]}`);
  if (Number.isNaN(whole)) return undefined;
  return BigInt(whole) * 1_000_000n + BigInt((match[2] ?? "").padEnd(9, "0"));
}

/** A query's `since` or `until`: seconds since 1970 with an optional fraction ("1700000000.123456789"), or RFC 3339; undefined where absent or 0. */
export function parseInstant(text: string | null): bigint | undefined {
  if (text === null || text === "" || text === "0") return undefined;
  const match = /^(-?\d+)(?:\.(\d{1,9})\d*)?$/.exec(text);
  if (match) {
    const fraction = BigInt((match[2] ?? "").padEnd(9, "0"));
    return BigInt(match[1]!) * 1_000_000_000n + fraction;
  }
  return parseNano(text);
}
