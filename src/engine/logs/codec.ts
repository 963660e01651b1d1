// How an entry stands in a log file. Both formats are one line an entry, so that tail, follow and rotation need not know which it is.
//
//   json-file  {"log":"hello\n","stream":"stdout","attrs":{…},"time":"2026-01-02T03:04:05.678901234Z"}   as dockerd's, byte for byte
//   local      o1hr9xk2f0a3 hello    stream and completeness (o, e: with newline; O, E: without), nanoseconds in base 36, the bytes as they are
import type { Entry, LogRecord } from "./driver.ts";
import { formatNano, parseNano } from "./time.ts";

export interface Codec {
  encode(entry: Entry): Uint8Array | string;
  /** `line` without its newline; undefined where it is no entry (a torn line). */
  decode(line: Buffer): LogRecord | undefined;
}

const decoder = new TextDecoder();
const encoder = new TextEncoder();
const NEWLINE = 10;

// What encoding/json escapes and JSON.stringify does not, or otherwise.
const GO_ESCAPES = /[<>&\u2028\u2029\ufffd\b\f\t]/g;

function goString(text: string): string {
  // JSON.stringify's own \t, \b and \f are told from a backslash followed by that letter by escaping before it.
  if (!GO_ESCAPES.test(text)) return JSON.stringify(text);
  GO_ESCAPES.lastIndex = 0;
  let out = '"';
  let done = 0;
  for (const match of text.matchAll(GO_ESCAPES)) {
    out += JSON.stringify(text.slice(done, match.index)).slice(1, -1);
    out += `\\u${match[0].charCodeAt(0).toString(16).padStart(4, "0")}`;
    done = match.index + 1;
  }
  return `${out}${JSON.stringify(text.slice(done)).slice(1, -1)}"`;
}

export function jsonFile(attrs: Record<string, string> | undefined): Codec {
  const extra = attrs && Object.keys(attrs).length > 0 ? `,"attrs":${JSON.stringify(attrs)}` : "";
  const middle = { stdout: `,"stream":"stdout"${extra},"time":"`, stderr: `,"stream":"stderr"${extra},"time":"` };
  return {
    encode: (entry) => `{"log":${goString(decoder.decode(entry.line))}${middle[entry.stream]}${formatNano(entry.time)}"}\n`,
    decode(line) {
      try {
        const value = JSON.parse(line.toString()) as { log?: unknown; stream?: unknown; time?: unknown; attrs?: Record<string, string> };
        const time = typeof value.time === "string" ? parseNano(value.time) : undefined;
        if (typeof value.log !== "string" || time === undefined) return undefined;
        const text = encoder.encode(value.log);
        return {
          stream: value.stream === "stderr" ? "stderr" : "stdout",
          line: text,
          time,
          partial: text[text.length - 1] !== NEWLINE,
          attrs: value.attrs,
        };
      } catch {
        return undefined;
      }
    },
  };
}

export const local: Codec = {
  encode(entry) {
    const whole = entry.line[entry.line.length - 1] === NEWLINE;
    const letter = entry.stream === "stdout" ? "o" : "e";
    const head = encoder.encode(`${whole ? letter : letter.toUpperCase()}${entry.time.toString(36)} `);
    const out = new Uint8Array(head.length + entry.line.length + (whole ? 0 : 1));
    out.set(head);
    out.set(entry.line, head.length);
    out[out.length - 1] = NEWLINE;
    return out;
  },
  decode(line) {
    const space = line.indexOf(32);
    const letter = String.fromCharCode(line[0] ?? 0);
    const digits = line.toString("latin1", 1, Math.max(space, 1));
    if (space < 2 || space > 16 || !"oeOE".includes(letter) || !/^[0-9a-z]+$/.test(digits)) return undefined;
    let time = 0n;
    for (const digit of digits) time = time * 36n + BigInt(Number.parseInt(digit, 36));
    const whole = letter === "o" || letter === "e";
    const text = whole ? Buffer.concat([line.subarray(space + 1), Buffer.of(NEWLINE)]) : line.subarray(space + 1);
    return { stream: letter.toLowerCase() === "e" ? "stderr" : "stdout", line: text, time, partial: !whole, attrs: undefined };
  },
};
