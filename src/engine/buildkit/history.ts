// Builds that were, for `buildx history`: what was asked, how it ended, how it went. The last ones are kept in memory, with their output, and are gone with the engine.
import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  BuildHistoryEventSchema,
  BuildHistoryRecordSchema,
  BuildHistoryRequest,
  SolveRequest,
} from "../../gen/moby/buildkit/v1_pb.ts";
import { BuildHistoryEventType } from "../../gen/moby/buildkit/v1_pb.ts";
import type { Source } from "../../gen/pb_pb.ts";
import { notFound } from "../../lib/errors.ts";
import { toStatus } from "./errors.ts";
import { type Progress, timestamp } from "./status.ts";

const MAX_KEPT = 50;
/** Of all that is kept of builds that are over, output included. */
const MAX_BYTES = 64 << 20;

type Init = MessageInitShape<typeof BuildHistoryRecordSchema>;

export interface HistoryEntry {
  ref: string;
  frontend: string;
  attrs: Record<string, string>;
  exporters: { Type: string; Attrs: Record<string, string> }[];
  created: number;
  completed: number | undefined;
  outcome: { answer: Record<string, string> } | { error: unknown; sources: readonly Source[] } | undefined;
  pinned: boolean;
}

export function historyOf(request: SolveRequest): HistoryEntry {
  return {
    ref: request.Ref,
    frontend: request.Frontend,
    attrs: request.FrontendAttrs,
    exporters: request.Exporters.map(({ Type, Attrs }) => ({ Type, Attrs })),
    created: Date.now(),
    completed: undefined,
    outcome: undefined,
    pinned: false,
  };
}

interface Kept {
  entry: HistoryEntry;
  progress: Progress;
  generation: number;
}

export interface History {
  begin(entry: HistoryEntry, progress: Progress): void;
  /** A client that is its own frontend says late what it builds. */
  describe(ref: string, frontend: string, attrs: Record<string, string>): void;
  end(entry: HistoryEntry, outcome: NonNullable<HistoryEntry["outcome"]>): void;
  progress(ref: string): Progress | undefined;
  /** What is there, and unless `EarlyExit` what comes. */
  listen(request: BuildHistoryRequest, signal: AbortSignal): AsyncGenerator<MessageInitShape<typeof BuildHistoryEventSchema>>;
  update(ref: string, change: { pinned: boolean; remove: boolean; finalize: boolean }): void;
}

/** `status==completed`, `ref=…`, `repository~=…`: alternatives in one filter are separated by commas. */
function matches(record: Kept, filters: readonly string[]): boolean {
  const { entry } = record;
  const status = entry.completed === undefined ? "running" : entry.outcome && "error" in entry.outcome ? "error" : "completed";
  const values: Record<string, string> = {
    ref: entry.ref,
    status,
    repository: entry.attrs["vcs:source"] ?? "",
    pinned: String(entry.pinned),
    startedAt: String(entry.created),
    completedAt: String(entry.completed ?? ""),
  };
  return filters.every((filter) =>
    filter.split(",").some((part) => {
      const match = /^"?(\w+)"?(==|!=|~=|=)"?([^"]*)"?$/.exec(part.trim());
      const have = match && values[match[1]!];
      if (!match || have === undefined || have === null) return true;
      if (match[2] === "!=") return have !== match[3];
      return match[2] === "~=" ? have.includes(match[3]!) : have === match[3];
    }),
  );
}

export function createHistory(): History {
  const kept = new Map<string, Kept>();
  const listeners = new Set<(kept: Kept, type: BuildHistoryEventType) => void>();
  let generation = 0;
  const tell = (each: Kept, type: BuildHistoryEventType) => {
    each.generation = ++generation;
    for (const listener of [...listeners]) listener(each, type);
  };

  function recordOf({ entry, progress, generation: Generation }: Kept): Init {
    const { total, completed, cached, warnings } = progress.counts();
    const { outcome } = entry;
    return {
      Ref: entry.ref,
      Frontend: entry.frontend,
      FrontendAttrs: entry.attrs,
      Exporters: entry.exporters,
      CreatedAt: timestamp(entry.created),
      ...(entry.completed === undefined ? {} : { CompletedAt: timestamp(entry.completed) }),
      ...(outcome && "error" in outcome ? { error: toStatus(outcome.error, outcome.sources) } : {}),
      ExporterResponse: outcome && "answer" in outcome ? outcome.answer : {},
      Generation,
      pinned: entry.pinned,
      numCachedSteps: cached,
      numTotalSteps: total,
      numCompletedSteps: completed,
      numWarnings: warnings,
    };
  }
  /** The oldest go first; of what is pinned, only when there is too much of it. */
  function trim(): void {
    const old = [...kept.values()].filter(({ entry }) => entry.completed !== undefined);
    let bytes = old.reduce((sum, { progress }) => sum + progress.size(), 0);
    let count = old.length;
    for (const { entry, progress } of old.sort((a, b) => Number(a.entry.pinned) - Number(b.entry.pinned))) {
      if (bytes <= MAX_BYTES && (count <= MAX_KEPT || entry.pinned)) return;
      kept.delete(entry.ref);
      bytes -= progress.size();
      count--;
    }
  }

  const eventOf = (
    each: Kept,
    type = each.entry.completed === undefined ? BuildHistoryEventType.STARTED : BuildHistoryEventType.COMPLETE,
  ) => ({
    type,
    record: recordOf(each),
  });

  return {
    begin(entry, progress) {
      const added = { entry, progress, generation: 0 };
      kept.set(entry.ref, added);
      trim();
      tell(added, BuildHistoryEventType.STARTED);
    },
    describe(ref, frontend, attrs) {
      const found = kept.get(ref);
      if (found?.entry.frontend !== "") return;
      found.entry.frontend = frontend;
      found.entry.attrs = { ...attrs, ...found.entry.attrs };
    },
    end(entry, outcome) {
      entry.completed = Date.now();
      entry.outcome = outcome;
      const found = kept.get(entry.ref);
      if (found?.entry === entry) tell(found, BuildHistoryEventType.COMPLETE);
    },
    progress: (ref) => kept.get(ref)?.progress,
    async *listen(request, signal) {
      const wanted = (each: Kept) =>
        (request.Ref === "" || each.entry.ref === request.Ref) &&
        (!request.ActiveOnly || each.entry.completed === undefined) &&
        matches(each, request.Filter);
      let there = [...kept.values()].filter(wanted);
      if (request.Limit > 0) there = there.sort((a, b) => b.entry.created - a.entry.created).slice(0, request.Limit);
      const queue: MessageInitShape<typeof BuildHistoryEventSchema>[] = there.map((each) => eventOf(each));
      let wake: () => void = () => {};
      const listener = (each: Kept, type: BuildHistoryEventType) => {
        const relevant = wanted(each) || (request.ActiveOnly && type !== BuildHistoryEventType.STARTED);
        if (relevant && (request.Ref === "" || each.entry.ref === request.Ref)) queue.push(eventOf(each, type));
        wake();
      };
      if (!request.EarlyExit) listeners.add(listener);
      const aborted = () => wake();
      signal.addEventListener("abort", aborted);
      try {
        for (;;) {
          const next = queue.shift();
          if (next) yield next;
          else if (request.EarlyExit || signal.aborted) return;
          else
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
        }
      } finally {
        listeners.delete(listener);
        signal.removeEventListener("abort", aborted);
      }
    },
    update(ref, { pinned, remove, finalize }) {
      const found = kept.get(ref);
      if (!found) throw notFound(`build history record ${ref} not found`);
      if (finalize) return;
      if (remove) {
        kept.delete(ref);
        tell(found, BuildHistoryEventType.DELETED);
        return;
      }
      found.entry.pinned = pinned;
      tell(found, BuildHistoryEventType.COMPLETE);
    },
  };
}
