// Reading hostile JSON: a size limit before parsing, and checks with the name of the field in the error.
import { invalidArgument } from "../lib/errors.ts";

export type Json = Record<string, unknown>;

const decoder = new TextDecoder("utf-8", { fatal: true });

/** One JSON object; InvalidArgument where it is too long, not UTF-8, not JSON, or not an object. */
export function parseObject(bytes: Uint8Array, what: string, limit: number): Json {
  if (bytes.length > limit) throw invalidArgument(`${what} is ${bytes.length} bytes long; the limit is ${limit}`);
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(bytes));
  } catch (error) {
    throw invalidArgument(`${what} is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  return object(value, what);
}

export function object(value: unknown, what: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw invalidArgument(`${what} is not an object`);
  return value as Json;
}

export function text(value: unknown, what: string): string {
  if (typeof value !== "string") throw invalidArgument(`${what} is not a string`);
  return value;
}

export function optionalText(value: unknown, what: string): string | undefined {
  return value === undefined || value === null ? undefined : text(value, what);
}

export function list(value: unknown, what: string, limit: number): unknown[] {
  if (!Array.isArray(value)) throw invalidArgument(`${what} is not a list`);
  if (value.length > limit) throw invalidArgument(`${what} has ${value.length} entries; the limit is ${limit}`);
  return value;
}

export function optionalList(value: unknown, what: string, limit: number): unknown[] {
  return value === undefined || value === null ? [] : list(value, what, limit);
}

export function texts(value: unknown, what: string, limit: number): string[] {
  return optionalList(value, what, limit).map((item, i) => text(item, `${what}[${i}]`));
}

/** An object of strings; undefined where absent. */
export function textMap(value: unknown, what: string): Record<string, string> | undefined {
  if (value === undefined || value === null) return undefined;
  const out: Record<string, string> = {};
  for (const [key, item] of Object.entries(object(value, what))) out[key] = text(item, `${what}.${key}`);
  return out;
}

/** A non-negative integer that a number holds exactly. */
export function size(value: unknown, what: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) throw invalidArgument(`${what} is not a size`);
  return value;
}
