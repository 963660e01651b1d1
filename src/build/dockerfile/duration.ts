// Durations as Go writes them: "1m30s", "500ms", "1.5h".
const UNITS: Record<string, number> = { h: 3600e9, m: 60e9, s: 1e9, ms: 1e6, us: 1e3, µs: 1e3, ns: 1 };

/** Nanoseconds; undefined where the text is no duration. */
export function parseDuration(text: string): number | undefined {
  if (text === "0") return 0;
  if (!/^[+-]?(?:\d+(?:\.\d*)?(?:h|ms|us|µs|ns|m|s))+$/.test(text) || text.length > 64) return undefined;
  let total = 0;
  for (const [, number, unit] of text.matchAll(/(\d+(?:\.\d*)?)(h|ms|us|µs|ns|m|s)/g)) total += Number(number) * UNITS[unit!]!;
  return text.startsWith("-") ? -total : total;
}
