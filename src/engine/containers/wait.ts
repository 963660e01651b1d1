// POST /containers/{id}/wait: the exit status as soon as it is known.
import type { Entry, Waiter } from "./book.ts";

export type WaitCondition = "not-running" | "next-exit" | "removed";

export interface WaitResult {
  status: number;
  error?: string;
}

/** Registers at once, so that no exit after the call is missed. Never resolves once `signal` aborts. */
export function waitFor(entry: Entry, condition: WaitCondition, signal: AbortSignal): Promise<WaitResult> {
  const { state } = entry.record;
  const result = (status: number, error: string): WaitResult => (error ? { status, error } : { status });
  if (condition === "not-running" && !state.Running) return Promise.resolve(result(state.ExitCode ?? 0, state.Error ?? ""));
  return new Promise((resolve) => {
    const done = (status: number, error: string) => {
      entry.waiters.delete(waiter);
      signal.removeEventListener("abort", leave);
      resolve(result(status, error));
    };
    const leave = () => entry.waiters.delete(waiter);
    const waiter: Waiter = condition === "removed" ? { removed: done } : { exit: done, removed: done };
    entry.waiters.add(waiter);
    signal.addEventListener("abort", leave, { once: true });
  });
}
