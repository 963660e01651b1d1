// One request with its answer, as the handlers see it.
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Readable } from "node:stream";
import { refuse } from "./errors.ts";

export interface Exchange {
  request: IncomingMessage;
  response: ServerResponse;
  query: URLSearchParams;
  /** Who asks, as far as authentication says; "" where there is none. */
  actor: string;
  /** Address and port of the client: they are gone with its connection. */
  remote: string;
  /** Identifies the request in log and events. */
  id: string;
}

export function isHead(exchange: Exchange): boolean {
  return exchange.request.method === "HEAD";
}

/** Sends a small answer. */
export function send(exchange: Exchange, status: number, headers: Record<string, string>, body?: Uint8Array | string): void {
  const { response } = exchange;
  if (body === undefined) {
    if (status !== 204 && status !== 304 && headers["content-length"] === undefined) headers["content-length"] = "0";
    response.writeHead(status, headers);
    response.end();
    return;
  }
  headers["content-length"] ??= String(typeof body === "string" ? Buffer.byteLength(body) : body.length);
  response.writeHead(status, headers);
  if (isHead(exchange)) response.end();
  else response.end(body);
}

export function sendJson(exchange: Exchange, value: unknown, headers: Record<string, string> = {}): void {
  send(exchange, 200, { "content-type": "application/json", ...headers }, JSON.stringify(value));
}

/** The length that a request announces; undefined for chunked transfer, and in HTTP/2, where none needs to. SIZE_INVALID where it is no number. */
export function contentLength(request: IncomingMessage): number | undefined {
  const text = request.headers["content-length"];
  if (text === undefined) return request.headers["transfer-encoding"] === undefined && request.httpVersionMajor < 2 ? 0 : undefined;
  const length = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(length)) throw refuse("SIZE_INVALID");
  return length;
}

/** The whole body, of bounded size. */
export async function wholeBody(request: IncomingMessage & Readable, limit: number): Promise<Buffer> {
  const announced = contentLength(request);
  const tooLong = () => refuse("SIZE_INVALID", { status: 413, message: `the body is longer than the limit of ${limit} bytes` });
  if (announced !== undefined && announced > limit) throw tooLong();
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    length += piece.length;
    if (length > limit) throw tooLong();
    pieces.push(piece);
  }
  if (announced !== undefined && announced !== length) throw refuse("SIZE_INVALID");
  return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
}

export interface Page {
  /** Most entries to send; undefined for all. */
  n: number | undefined;
  last: string | undefined;
}

/** The parameters `n` and `last`. */
export function parsePage(query: URLSearchParams, most?: number): Page {
  const text = query.get("n");
  const last = query.get("last") || undefined;
  if (text === null || text === "") return { n: most, last };
  const n = Number(text);
  if (!/^\d{1,9}$/.test(text)) throw refuse("PAGINATION_NUMBER_INVALID", { detail: { n: text.slice(0, 20) } });
  return { n: most === undefined ? n : Math.min(n, most), last };
}

/** The page of a sorted list, and the Link to the next where there is one. */
export function pageOf(
  items: string[],
  page: Page,
  path: string,
  more: Record<string, string> = {},
): { items: string[]; headers: Record<string, string> } {
  const { n, last } = page;
  const rest = last === undefined ? items : items.filter((item) => item > last);
  if (n === undefined || rest.length <= n) return { items: rest, headers: {} };
  const some = rest.slice(0, n);
  if (n === 0) return { items: some, headers: {} };
  const query = new URLSearchParams({ ...more, n: String(n), last: some.at(-1)! });
  return { items: some, headers: { link: `<${path}?${query}>; rel="next"` } };
}
