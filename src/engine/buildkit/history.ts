// Builds for `buildx history`: those that are under way, and those that were (archive.ts), which outlive the engine.
import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import {
  type BuildHistoryEventSchema,
  BuildHistoryEventType,
  type BuildHistoryRecord,
  BuildHistoryRecordSchema,
  type BuildHistoryRequest,
  type BuildResultInfoSchema,
  type SolveRequest,
} from "../../gen/moby/buildkit/v1_pb.ts";
import type { Source } from "../../gen/pb_pb.ts";
import { messageOf, notFound } from "../../lib/errors.ts";
import { digestOf } from "../../oci/index.ts";
import type { Archive, Document } from "./archive.ts";
import { toStatus } from "./errors.ts";
import { type Followed, type Progress, timestamp } from "./status.ts";

type Init = MessageInitShape<typeof BuildHistoryRecordSchema>;

/** How a build ended, with what is known of its results by platform ("" where it has no platforms). */
export type Outcome =
  | { answer: Record<string, string>; provenance: ReadonlyMap<string, { predicateType: string; predicate: unknown }> }
  | { error: unknown; sources: readonly Source[] };

export interface HistoryEntry {
  ref: string;
  frontend: string;
  attrs: Record<string, string>;
  exporters: { Type: string; Attrs: Record<string, string> }[];
  created: number;
  completed: number | undefined;
  outcome: Outcome | undefined;
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

interface Running {
  entry: HistoryEntry;
  progress: Progress;
}

export interface History {
  begin(entry: HistoryEntry, progress: Progress): void;
  /** A client that is its own frontend says late what it builds. */
  describe(ref: string, frontend: string, attrs: Record<string, string>): void;
  end(entry: HistoryEntry, outcome: Outcome): void;
  progress(ref: string): Followed | undefined;
  /** What is there, and unless `EarlyExit` what comes. */
  listen(request: BuildHistoryRequest, signal: AbortSignal): AsyncGenerator<MessageInitShape<typeof BuildHistoryEventSchema>>;
  update(ref: string, change: { pinned: boolean; remove: boolean; finalize: boolean }): void;
  /** A document that a record names. */
  document(digest: string): Uint8Array | undefined;
  /** Waits until all that ended is kept. */
  settled(): Promise<void>;
}

const IN_TOTO = "application/vnd.in-toto+json";

/** What a record says of results, and the documents that it names. */
function resultsOf(outcome: Outcome | undefined): { fields: Init; documents: Document[] } {
  if (!outcome || "error" in outcome) return { fields: {}, documents: [] };
  const documents: Document[] = [];
  const given = outcome.answer["containerimage.descriptor"];
  const image = given && (JSON.parse(Buffer.from(given, "base64").toString("utf8")) as Record<string, unknown>);
  const results = image
    ? { "0": { mediaType: String(image.mediaType), digest: String(image.digest), size: BigInt(Number(image.size)) } }
    : {};
  const infos = new Map<string, MessageInitShape<typeof BuildResultInfoSchema>>();
  for (const [name, { predicateType, predicate }] of outcome.provenance) {
    const bytes = Buffer.from(JSON.stringify(predicate, undefined, 2));
    const digest = digestOf(bytes);
    documents.push({ digest, bytes });
    const annotations = { "in-toto.io/predicate-type": predicateType };
    const Attestations = [{ mediaType: IN_TOTO, digest, size: BigInt(bytes.length), annotations }];
    infos.set(name, { Attestations, Results: name === "" ? results : {} } as never);
  }
  const whole = infos.get("") ?? { Attestations: [], Results: results };
  const several = [...infos].filter(([name]) => name !== "");
  return {
    fields: { Result: whole as never, ...(several.length > 0 ? { Results: Object.fromEntries(several) as never } : {}) },
    documents,
  };
}

/** `status==completed`, `ref=…`, `repository~=…`: alternatives in one filter are separated by commas. */
function matches(record: BuildHistoryRecord, filters: readonly string[]): boolean {
  const time = (at: BuildHistoryRecord["CreatedAt"]) => (at ? String(Number(at.seconds) * 1000 + Math.floor(at.nanos / 1e6)) : "");
  const values: Record<string, string> = {
    ref: record.Ref,
    status: record.CompletedAt === undefined ? "running" : record.error ? "error" : "completed",
    repository: record.FrontendAttrs["vcs:source"] ?? "",
    pinned: String(record.pinned),
    startedAt: time(record.CreatedAt),
    completedAt: time(record.CompletedAt),
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

export function createHistory(archive: Archive, log: (message: string) => void): History {
  const running = new Map<string, Running>();
  /** Builds that are over and about to be kept. */
  const ending = new Map<string, { record: BuildHistoryRecord; progress: Progress; documents: Document[] }>();
  const kept = new Map(archive.records().map((record) => [record.Ref, record]));
  const listeners = new Set<(record: BuildHistoryRecord, type: BuildHistoryEventType) => void>();
  let generation = 0;
  let keeping: Promise<void> = Promise.resolve();
  const tell = (record: BuildHistoryRecord, type: BuildHistoryEventType) => {
    record.Generation = ++generation;
    for (const listener of [...listeners]) listener(record, type);
  };

  function recordOf({ entry, progress }: Running, results: Init = {}): BuildHistoryRecord {
    const { total, completed, cached, warnings } = progress.counts();
    const { outcome } = entry;
    return create(BuildHistoryRecordSchema, {
      Ref: entry.ref,
      Frontend: entry.frontend,
      FrontendAttrs: entry.attrs,
      Exporters: entry.exporters,
      CreatedAt: timestamp(entry.created),
      ...(entry.completed === undefined ? {} : { CompletedAt: timestamp(entry.completed) }),
      ...(outcome && "error" in outcome ? { error: toStatus(outcome.error, outcome.sources) } : {}),
      ExporterResponse: outcome && "answer" in outcome ? outcome.answer : {},
      ...results,
      pinned: entry.pinned,
      numCachedSteps: cached,
      numTotalSteps: total,
      numCompletedSteps: completed,
      numWarnings: warnings,
    });
  }
  const all = (): BuildHistoryRecord[] => [...kept.values(), ...[...running.values()].map((each) => recordOf(each))];
  const typeOf = (record: BuildHistoryRecord) =>
    record.CompletedAt === undefined ? BuildHistoryEventType.STARTED : BuildHistoryEventType.COMPLETE;

  /** Into the database, after the client has its answer. */
  async function keep(ref: string): Promise<void> {
    const ended = ending.get(ref);
    if (!ended) return;
    try {
      for (const gone of await archive.add(ended.record, ended.progress, ended.documents)) {
        const record = kept.get(gone);
        kept.delete(gone);
        if (record) tell(record, BuildHistoryEventType.DELETED);
      }
      // taken away meanwhile
      if (!kept.has(ref)) archive.remove(ref);
    } catch (error) {
      kept.delete(ref);
      log(`build history: ${messageOf(error)}`);
    }
    ending.delete(ref);
  }

  return {
    begin(entry, progress) {
      const added = { entry, progress };
      running.set(entry.ref, added);
      tell(recordOf(added), BuildHistoryEventType.STARTED);
    },
    describe(ref, frontend, attrs) {
      const found = running.get(ref);
      if (found?.entry.frontend !== "") return;
      found.entry.frontend = frontend;
      found.entry.attrs = { ...attrs, ...found.entry.attrs };
    },
    end(entry, outcome) {
      entry.completed = Date.now();
      entry.outcome = outcome;
      const found = running.get(entry.ref);
      if (found?.entry !== entry) return;
      running.delete(entry.ref);
      const { fields, documents } = resultsOf(outcome);
      const record = recordOf(found, fields);
      kept.set(entry.ref, record);
      ending.set(entry.ref, { record, progress: found.progress, documents });
      tell(record, BuildHistoryEventType.COMPLETE);
      keeping = keeping.then(() => new Promise((resolve) => setImmediate(() => keep(entry.ref).then(resolve))));
    },
    progress(ref) {
      const live = running.get(ref) ?? ending.get(ref);
      if (live) return live.progress;
      return kept.has(ref) ? archive.progress(ref) : undefined;
    },
    document(digest) {
      for (const { documents } of ending.values()) {
        const found = documents.find((each) => each.digest === digest);
        if (found) return found.bytes;
      }
      return archive.document(digest);
    },
    settled: () => keeping,
    async *listen(request, signal) {
      const wanted = (record: BuildHistoryRecord) =>
        (request.Ref === "" || record.Ref === request.Ref) &&
        (!request.ActiveOnly || record.CompletedAt === undefined) &&
        matches(record, request.Filter);
      let there = all().filter(wanted);
      const seconds = ({ CreatedAt }: BuildHistoryRecord) => Number(CreatedAt?.seconds ?? 0n) * 1e9 + (CreatedAt?.nanos ?? 0);
      if (request.Limit > 0) there = there.sort((a, b) => seconds(b) - seconds(a)).slice(0, request.Limit);
      const queue: MessageInitShape<typeof BuildHistoryEventSchema>[] = there.map((record) => ({ type: typeOf(record), record }));
      let wake: () => void = () => {};
      const listener = (record: BuildHistoryRecord, type: BuildHistoryEventType) => {
        const relevant = wanted(record) || (request.ActiveOnly && type !== BuildHistoryEventType.STARTED);
        if (relevant && (request.Ref === "" || record.Ref === request.Ref)) queue.push({ type, record });
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
      const live = running.get(ref);
      const record = kept.get(ref);
      if (!live && !record) throw notFound(`build history record ${ref} not found`);
      if (finalize) return;
      if (live) {
        if (!remove) live.entry.pinned = pinned;
        return;
      }
      if (remove) {
        kept.delete(ref);
        archive.remove(ref);
        tell(record!, BuildHistoryEventType.DELETED);
        return;
      }
      record!.pinned = pinned;
      archive.update(record!);
      tell(record!, BuildHistoryEventType.COMPLETE);
    },
  };
}
