// Parameters of POST /build that are JSON.
import { invalidArgument } from "../../lib/errors.ts";

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
export const isList = (value: unknown): value is unknown[] => Array.isArray(value);
/** An object of strings; a build argument without a value is null. */
export const isStrings = (value: unknown): value is Record<string, string | null> =>
  isObject(value) && Object.values(value).every((each) => each === null || typeof each === "string");

/** Undefined where it is not given, empty, or null. InvalidArgument where it is something else than `is` says. */
export const json = <T>(query: URLSearchParams, name: string, is: (value: unknown) => value is T): T | undefined =>
  parsed(query.get(name), name, is);

export function parsed<T>(text: string | null, name: string, is: (value: unknown) => value is T): T | undefined {
  if (!text) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw invalidArgument(`error reading ${name}: malformed JSON`);
  }
  if (value === null) return undefined;
  if (!is(value)) throw invalidArgument(`error reading ${name}: JSON of another kind is expected`);
  return value;
}
