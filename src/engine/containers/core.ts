// What the functions of this folder share: the engine, the book of records, and the verbs that call each other.
import type { ContainerState } from "../../api/types.ts";
import type { ContainerRecord, Engine } from "../context.ts";
import type { Book, Entry } from "./book.ts";

export interface Core {
  engine: Engine;
  book: Book;
  /** The engine is shutting down: what ends now is not started again. */
  stopping: boolean;
  /** Work that nobody waits for but the engine's end. */
  background: Set<Promise<unknown>>;
  /** `checkpoint`: directory of the images that it goes on from. */
  start(entry: Entry, checkpoint?: string): Promise<boolean>;
  stop(entry: Entry, options: { timeout?: number; signal?: string; byUser: boolean }): Promise<boolean>;
  remove(entry: Entry, options: { force: boolean; volumes: boolean }): Promise<void>;
}

/** Lets `work` go on by itself; the engine's end waits for it. It must not fail. */
export function inBackground(core: Core, work: Promise<unknown>): void {
  core.background.add(work);
  void work.finally(() => core.background.delete(work));
}

export const NEVER = "0001-01-01T00:00:00Z";

/** The time as the API writes it: RFC 3339 with nanoseconds. */
export function now(): string {
  const microseconds = Math.round((performance.timeOrigin + performance.now()) * 1000);
  const date = new Date(Math.floor(microseconds / 1000)).toISOString();
  return `${date.slice(0, -1)}${String(microseconds % 1000).padStart(3, "0")}000Z`;
}

export function timeOf(timestamp: { seconds: bigint; nanos: number }): string {
  const date = new Date(Number(timestamp.seconds) * 1000).toISOString();
  return `${date.slice(0, 19)}.${String(timestamp.nanos).padStart(9, "0")}Z`;
}

/** Publishes what happened to a container, with Docker's attributes. */
export function publish(core: Core, record: ContainerRecord, action: string, attributes: Record<string, string> = {}): void {
  const { events } = core.engine;
  events.publish("container", action, record.id, { ...events.containerAttributes(record), ...attributes });
}

export function newState(): ContainerState {
  return {
    Status: "created",
    Running: false,
    Paused: false,
    Restarting: false,
    OOMKilled: false,
    Dead: false,
    Pid: 0,
    ExitCode: 0,
    Error: "",
    StartedAt: NEVER,
    FinishedAt: NEVER,
  };
}

export function publishPrune(core: Core, reclaimed: number): void {
  core.engine.events.publish("container", "prune", "", { reclaimed: String(reclaimed) });
}
