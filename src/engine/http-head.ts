// Heads of HTTP/1.1 messages: requests parsed, answers written (RFC 9112).
import { invalidArgument } from "../lib/errors.ts";

const REASONS: Record<number, string> = {
  101: "UPGRADED",
  200: "OK",
  201: "Created",
  204: "No Content",
  304: "Not Modified",
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  406: "Not Acceptable",
  409: "Conflict",
  412: "Precondition Failed",
  413: "Content Too Large",
  429: "Too Many Requests",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  501: "Not Implemented",
  503: "Service Unavailable",
  504: "Gateway Timeout",
  507: "Insufficient Storage",
};

let date = "";
function dateHeader(): string {
  if (!date) {
    date = new Date().toUTCString();
    setTimeout(() => {
      date = "";
    }, 1000).unref();
  }
  return date;
}

/** Status line and headers of an answer, without the empty line. `common`: header lines of every answer. */
export function headOf(status: number, headers: Record<string, string>, common: string): string {
  let head = `HTTP/1.1 ${status} ${REASONS[status] ?? "Status"}\r\n${common}Date: ${dateHeader()}\r\n`;
  // A header's value may carry text of ours that came from outside: no line break gets through.
  for (const name in headers) head += `${name}: ${headers[name]!.replace(/[\r\n\0]/g, " ")}\r\n`;
  return head;
}

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

export interface Head {
  method: string;
  target: string;
  minor: number;
  headers: Record<string, string | undefined>;
}

/** Parses the head's lines (without the empty one); the error's message is for the client. */
export function parseHead(text: string): Head {
  const lines = text.split("\r\n");
  const first = /^([A-Z]{1,16}) (\S{1,32768}) HTTP\/1\.([01])$/.exec(lines[0]!);
  if (!first) throw invalidArgument("malformed HTTP request line");
  const headers: Record<string, string | undefined> = Object.create(null);
  for (let i = 1; i < lines.length; i++) {
    const line = lines[i]!;
    const colon = line.indexOf(":");
    const name = line.slice(0, colon);
    if (colon <= 0 || !TOKEN.test(name)) throw invalidArgument("malformed HTTP header");
    const value = line.slice(colon + 1).trim();
    if (/[\0\r\n]/.test(value)) throw invalidArgument("malformed HTTP header");
    const key = name.toLowerCase();
    const before = headers[key];
    if (before !== undefined && (key === "content-length" || key === "host")) throw invalidArgument(`repeated HTTP header ${name}`);
    headers[key] = before === undefined ? value : `${before}, ${value}`;
  }
  let target = first[2]!;
  // The absolute form (RFC 9112, 3.2.2) names the host once more.
  const absolute = /^https?:\/\/[^/?]*(.*)$/.exec(target);
  if (absolute) target = absolute[1]!.startsWith("/") ? absolute[1]! : `/${absolute[1]!}`;
  return { method: first[1]!, target, minor: Number(first[3]), headers };
}
