// Ranges and conditions of GET and HEAD (RFC 9110, 13 and 14) for content that never changes: its entity tag is its digest.
import type { IncomingHttpHeaders } from "node:http";
import { refuse } from "./errors.ts";

/** First and last byte, both included. */
export interface ByteRange {
  start: number;
  end: number;
}

/** The one range that is asked for; undefined for the whole (no range, several, or a form that is not ours to understand); 416 where it lies outside. */
export function parseRange(headers: IncomingHttpHeaders, size: number, etag: string): ByteRange | undefined {
  const { range } = headers;
  if (range === undefined) return undefined;
  const condition = headers["if-range"];
  if (condition !== undefined && condition !== etag) return undefined;
  const match = /^bytes=\s*(\d*)-(\d*)\s*$/.exec(range);
  if (!match || (match[1] === "" && match[2] === "")) return undefined;
  const unsatisfiable = () =>
    refuse("RANGE_INVALID", { message: "the range lies outside the blob", headers: { "content-range": `bytes */${size}` } });
  if (match[1] === "") {
    const length = Math.min(Number(match[2]), size);
    if (length === 0) throw unsatisfiable();
    return { start: size - length, end: size - 1 };
  }
  const start = Number(match[1]);
  const end = match[2] === "" ? size - 1 : Math.min(Number(match[2]), size - 1);
  if (match[2] !== "" && Number(match[2]) < start) return undefined;
  if (start >= size) throw unsatisfiable();
  return { start, end };
}

/** Whether the client has it already. */
export function notModified(headers: IncomingHttpHeaders, etag: string): boolean {
  const condition = headers["if-none-match"];
  if (condition === undefined) return false;
  return condition.split(",").some((one) => {
    const tag = one.trim().replace(/^W\//, "");
    return tag === "*" || tag === etag || `"${tag}"` === etag;
  });
}

/** The Content-Range of an upload's chunk, "first-last" (distribution-spec, "Pushing a blob in chunks"); also with "bytes " before. */
export function parseContentRange(text: string): ByteRange | undefined {
  const match = /^(?:bytes[ =])?\s*(\d{1,15})-(\d{1,15})(?:\/(?:\d+|\*))?$/.exec(text.trim());
  if (!match) return undefined;
  const start = Number(match[1]);
  const end = Number(match[2]);
  return end < start ? undefined : { start, end };
}
