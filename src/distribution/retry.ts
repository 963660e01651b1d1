// When a request to a registry is worth another attempt, and after which time.
import { isKind } from "../lib/errors.ts";
import { RegistryError } from "./errors.ts";

/** A registry that wants to be left alone for longer than this (milliseconds) is not waited for. */
const MAX_RETRY_AFTER = 120_000;
const MAX_DELAY = 8000;

export const sleep = (ms: number, signal: AbortSignal | undefined) =>
  new Promise<void>((resolve, reject) => {
    const timer = setTimeout(done, ms);
    function done() {
      signal?.removeEventListener("abort", give);
      resolve();
    }
    function give() {
      clearTimeout(timer);
      reject(signal!.reason);
    }
    signal?.addEventListener("abort", give, { once: true });
  });

/** Worth another attempt: the connection or the server, not the request. */
export function transient(error: unknown): boolean {
  if (error instanceof RegistryError)
    return (error.status >= 500 || error.status === 429 || error.status === 408) && (error.retryAfter ?? 0) <= MAX_RETRY_AFTER;
  return isKind(error, "Unavailable");
}

/** Milliseconds to wait after the n-th failure, or as long as the registry says. */
export function delayAfter(error: unknown, failures: number): number {
  const said = error instanceof RegistryError ? error.retryAfter : undefined;
  return said ?? Math.min(MAX_DELAY, 250 * 2 ** failures);
}
