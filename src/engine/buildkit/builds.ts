// Builds that are under way, by the reference that their client chose. Control.Solve begins one and ends it; Status follows it; with a client that is its own frontend
// (buildx) LLBBridge calls work in it meanwhile, until Return gives what is to be exported.
import { randomBytes } from "node:crypto";
import type { BuildEvent, BuildHost, BuildSession, Ref, Result, SourcePolicy } from "../../build/index.ts";
import type { Status as RpcStatus } from "../../gen/google/rpc/status_pb.ts";
import type { Definition, Source } from "../../gen/pb_pb.ts";
import { alreadyExists, cancelled, notFound, resourceExhausted } from "../../lib/errors.ts";
import { ClientFailure } from "./errors.ts";
import type { Progress } from "./status.ts";

const MAX_BUILDS = 1024;
const MAX_REFS = 10_000;
/** How long Status and LLBBridge wait for the build that they name; the client asks for all at once. */
const WAIT_MS = 6000;
/** Builds that are over and may still be asked for: their clients ask for status and solve at once, and a refusal is quick. */
const MAX_ENDED = 64;

export interface Build {
  readonly ref: string;
  readonly progress: Progress;
  readonly session: BuildSession;
  readonly host: BuildHost;
  /** What sources it may have; undefined: any. */
  readonly policy: SourcePolicy | undefined;
  readonly signal: AbortSignal;
  /** What definitions said of where vertices come from. */
  readonly sources: Source[];
  readonly inputs: ReadonlyMap<string, Definition>;
  /** How many frontends of images it is within. */
  readonly depth: number;
  /** Entered references, by id; "" is the empty tree. */
  reference(id: string): Ref | undefined;
  /** Gives a reference an id. */
  enter(ref: Ref | undefined): string;
  /** The client's frontend is done. */
  finish(outcome: { result: Result } | { error: RpcStatus }): void;
  /** What the client's frontend returned. */
  readonly returned: Promise<Result>;
  tell(event: BuildEvent): void;
}

export interface Builds {
  /** A build's progress, from when it is announced; awaited for a while. NotFound. */
  progress(ref: string, signal: AbortSignal): Promise<Progress>;
  get(ref: string, signal: AbortSignal): Promise<Build>;
  /** Takes the reference for a build that begins. AlreadyExists. */
  announce(ref: string, progress: Progress, cancel: () => void): { begin(build: Build): void; end(): void };
  /** Ends a build. False where there is none. */
  cancel(ref: string): boolean;
  list(): string[];
}

interface Entry {
  progress: Progress;
  build: Build | undefined;
  cancel: () => void;
}

export function createBuilds(): Builds {
  const entries = new Map<string, Entry>();
  const ended = new Map<string, Progress>();
  const waiting = new Set<() => void>();
  const changed = () => {
    for (const each of [...waiting]) each();
  };

  async function awaited<T>(find: () => T | undefined, ref: string, signal: AbortSignal): Promise<T> {
    const end = Date.now() + WAIT_MS;
    for (;;) {
      const found = find();
      if (found !== undefined) return found;
      const left = end - Date.now();
      if (left <= 0 || signal.aborted) throw notFound(`no such job ${ref}`);
      await new Promise<void>((resolve) => {
        const done = () => {
          clearTimeout(timer);
          waiting.delete(done);
          signal.removeEventListener("abort", done);
          resolve();
        };
        const timer = setTimeout(done, left);
        waiting.add(done);
        signal.addEventListener("abort", done, { once: true });
      });
    }
  }

  return {
    progress: (ref, signal) => awaited(() => entries.get(ref)?.progress ?? ended.get(ref), ref, signal),
    get(ref, signal) {
      const find = () => {
        if (ended.has(ref) && !entries.has(ref)) throw notFound(`job ${ref} is over`);
        return entries.get(ref)?.build;
      };
      return awaited(find, ref, signal);
    },
    announce(ref, progress, cancel) {
      if (entries.has(ref)) throw alreadyExists(`job ID ${ref} exists`);
      if (entries.size >= MAX_BUILDS) throw resourceExhausted("too many builds at once");
      const entry: Entry = { progress, build: undefined, cancel };
      entries.set(ref, entry);
      changed();
      return {
        begin(build) {
          entry.build = build;
          changed();
        },
        end() {
          progress.end();
          entry.build = undefined;
          if (entries.get(ref) === entry) entries.delete(ref);
          ended.set(ref, progress);
          for (const old of ended.keys()) if (ended.size > MAX_ENDED) ended.delete(old);
          changed();
        },
      };
    },
    cancel(ref) {
      const entry = entries.get(ref);
      entry?.cancel();
      return entry !== undefined;
    },
    list: () => [...entries.keys()],
  };
}

export function createBuild(options: Pick<Build, "ref" | "progress" | "session" | "host" | "policy" | "signal" | "inputs">): Build {
  const references = new Map<string, Ref>();
  const sources: Source[] = [];
  const { promise, resolve, reject } = Promise.withResolvers<Result>();
  promise.catch(() => {});
  const gone = () => reject(cancelled("context canceled"));
  if (options.signal.aborted) gone();
  else options.signal.addEventListener("abort", gone, { once: true });
  return {
    ...options,
    depth: 0,
    sources,
    returned: promise,
    reference(id) {
      if (id === "") return undefined;
      const found = references.get(id);
      if (!found) throw notFound(`no such ref: ${id}`);
      return found;
    },
    enter(ref) {
      if (!ref) return "";
      if (references.size >= MAX_REFS) throw resourceExhausted(`a build has more than ${MAX_REFS} references`);
      const id = randomBytes(16).toString("hex");
      references.set(id, ref);
      return id;
    },
    finish(outcome) {
      if ("result" in outcome) resolve(outcome.result);
      else reject(new ClientFailure(outcome.error));
    },
    tell: (event) => options.progress.tell(event),
  };
}
