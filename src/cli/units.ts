// Sizes and durations in the words of Docker's units.

const DECIMAL = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/** Go's %.Ng: N significant digits, no trailing zeros, an exponent where the number has more digits than that. */
export function significant(value: number, digits: number): string {
  if (value === 0) return "0";
  const exponent = Number(value.toExponential(digits - 1).split("e")[1]);
  if (exponent < -4 || exponent >= digits) {
    const [mantissa, power] = value.toExponential(digits - 1).split("e") as [string, string];
    const shortened = mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa;
    return `${shortened}e${power[0]}${power.slice(1).padStart(2, "0")}`;
  }
  return String(Number(value.toPrecision(digits)));
}

function scaled(size: number, base: number, names: string[], digits: number): string {
  let i = 0;
  let value = size;
  while (value >= base && i < names.length - 1) {
    value /= base;
    i++;
  }
  return `${significant(value, digits)}${names[i]}`;
}

/** "1.984MB": powers of 1000, four digits unless said otherwise. */
export function humanSize(size: number, digits = 4): string {
  return scaled(size, 1000, DECIMAL, digits);
}

/** "1.5MiB": powers of 1024, four digits. */
export function bytesSize(size: number): string {
  return scaled(size, 1024, BINARY, 4);
}

/** "About a minute", "3 hours": a length of time in milliseconds. */
export function humanDuration(ms: number): string {
  const seconds = Math.trunc(ms / 1000);
  if (seconds < 1) return "Less than a second";
  if (seconds === 1) return "1 second";
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.trunc(ms / 60_000);
  if (minutes === 1) return "About a minute";
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.trunc(ms / 3_600_000 + 0.5);
  if (hours === 1) return "About an hour";
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.trunc(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.trunc(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.trunc(hours / 24 / 30)} months`;
  return `${Math.trunc(ms / 3_600_000 / 24 / 365)} years`;
}

/** "2 hours ago"; "" for no time. */
export function ago(seconds: number, now = Date.now()): string {
  return `${humanDuration(now - seconds * 1000)} ago`;
}

/** Go's Time.String(): "2026-11-21 06:42:30 +0000 UTC" in local time. */
export function goTime(seconds: number, fraction = ""): string {
  const date = new Date(seconds * 1000);
  const two = (n: number) => String(n).padStart(2, "0");
  const offset = -date.getTimezoneOffset();
  const zone = `${offset < 0 ? "-" : "+"}${two(Math.trunc(Math.abs(offset) / 60))}${two(Math.abs(offset) % 60)}`;
  const name = offset === 0 ? "UTC" : (zoneName(date) ?? zone);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}${fraction} ${zone} ${name}`;
}

function zoneName(date: Date): string | undefined {
  const name = new Intl.DateTimeFormat("en-US", { timeZoneName: "short" })
    .formatToParts(date)
    .find((p) => p.type === "timeZoneName")?.value;
  return name?.startsWith("GMT") ? undefined : name;
}

/** Characters, with "…" in the last place where the text is longer. */
export function ellipsis(text: string, length: number): string {
  const characters = [...text];
  if (characters.length <= length) return text;
  return length <= 1 ? characters.slice(0, length).join("") : `${characters.slice(0, length - 1).join("")}…`;
}

/** The first twelve digits of an id, without "sha256:". */
export function shortId(id: string): string {
  const at = id.indexOf(":");
  return (at >= 0 ? id.slice(at + 1) : id).slice(0, 12);
}

/** Bytes from "10m", "1.5g", "512k", "1024": powers of 1024 as `--memory` takes them; undefined where malformed. */
export function parseBytes(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?) ?([kKmMgGtTpP])?([iI])?[bB]?$/.exec(text);
  if (!match || (match[3] && !match[2])) return undefined;
  const power = match[2] ? "kmgtp".indexOf(match[2].toLowerCase()) + 1 : 0;
  return Math.trunc(Number(match[1]) * 1024 ** power);
}

const DURATION_UNITS: Record<string, number> = { ns: 1, us: 1e3, µs: 1e3, μs: 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 };

/** Nanoseconds from Go's "1h2m3.5s"; throws with Go's sentence. */
export function parseDuration(text: string): number {
  const bad = () => new Error(`time: invalid duration ${JSON.stringify(text)}`);
  let rest = text;
  const sign = rest.startsWith("-") ? -1 : 1;
  rest = rest.replace(/^[+-]/, "");
  if (rest === "0") return 0;
  if (rest === "") throw bad();
  let total = 0;
  while (rest !== "") {
    const number = /^(\d+(?:\.\d*)?|\.\d+)/.exec(rest)?.[0];
    if (number === undefined) throw bad();
    rest = rest.slice(number.length);
    const unit = /^[^\d.]+/.exec(rest)?.[0];
    if (unit === undefined) throw new Error(`time: missing unit in duration ${JSON.stringify(text)}`);
    if (!(unit in DURATION_UNITS)) throw new Error(`time: unknown unit ${JSON.stringify(unit)} in duration ${JSON.stringify(text)}`);
    total += Number(number) * DURATION_UNITS[unit]!;
    rest = rest.slice(unit.length);
  }
  return sign * Math.round(total);
}

/** Go's Duration.String() of nanoseconds: "1m30s", "1.5s", "0s". */
export function goDuration(ns: number): string {
  if (ns === 0) return "0s";
  const sign = ns < 0 ? "-" : "";
  const n = Math.abs(ns);
  if (n < 1e3) return `${sign}${n}ns`;
  if (n < 1e6) return `${sign}${n / 1e3}µs`;
  if (n < 1e9) return `${sign}${n / 1e6}ms`;
  const hours = Math.trunc(n / 3600e9);
  const minutes = Math.trunc((n % 3600e9) / 60e9);
  const seconds = (n % 60e9) / 1e9;
  return `${sign}${hours ? `${hours}h` : ""}${hours || minutes ? `${minutes}m` : ""}${seconds}s`;
}

/** A build's time as docker prints it, "Fri May 30 12:07:14 2025"; what is no time stays as it is. */
export function buildDate(text: string): string {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return text;
  const [, weekday, day, month, year, time] = /^(\w+), (\d+) (\w+) (\d+) ([\d:]+)/.exec(date.toUTCString())!;
  return `${weekday} ${month} ${String(Number(day)).padStart(2)} ${time} ${year}`;
}
