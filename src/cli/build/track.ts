// What is known of a build while it runs, from the updates of Control.Status: steps in the order in which they were told, what each said, what it transfers.
import type { StatusResponse } from "../../client/index.ts";

export interface Part {
  id: string;
  name: string;
  current: number;
  total: number;
  started: number | undefined;
  completed: number | undefined;
}

export interface Step {
  digest: string;
  number: number;
  name: string;
  inputs: string[];
  /** Milliseconds since 1970. */
  started: number | undefined;
  completed: number | undefined;
  cached: boolean;
  error: string;
  parts: Map<string, Part>;
  /** Whole lines of its output, the last ones. */
  lines: { text: string; time: number }[];
  /** A line that has no end yet. */
  rest: string;
}

export interface Warning {
  short: string;
  detail: string[];
  url: string;
  lines: { filename: string; text: string; start: number; end: number } | undefined;
}

/** Why a step was not found in the cache. */
export interface Miss {
  name: string;
  earlier: boolean;
  changed: { name: string; before?: string; now?: string }[];
}

export type Change = { step: Step } | { step: Step; line: { text: string; time: number } } | { step: Step; part: Part };

export interface Track {
  readonly steps: ReadonlyMap<string, Step>;
  readonly warnings: Warning[];
  readonly misses: Miss[];
  take(update: StatusResponse): Change[];
}

/** Lines of a step that are kept for the display and for its failure. */
const KEPT = 200;
/** A longer line is broken. */
const MAX_LINE = 16 << 10;

interface Time {
  seconds: bigint;
  nanos: number;
}
const ms = (time: Time | undefined) => (time ? Number(time.seconds) * 1000 + time.nanos / 1e6 : undefined);

export function createTrack(): Track {
  const steps = new Map<string, Step>();
  const warnings: Warning[] = [];
  const misses: Miss[] = [];
  const decoders = new Map<string, TextDecoder>();

  function stepOf(digest: string): Step {
    let step = steps.get(digest);
    if (!step) {
      step = {
        digest,
        number: 0,
        name: "",
        inputs: [],
        started: undefined,
        completed: undefined,
        cached: false,
        error: "",
        parts: new Map(),
        lines: [],
        rest: "",
      };
      steps.set(digest, step);
    }
    return step;
  }

  return {
    steps,
    warnings,
    misses,
    take(update) {
      // As it happened: an update holds what came within a while, in no order. What a step says comes before its end.
      const changes: { time: number; rank: number; change: Change }[] = [];
      const note = (time: number | undefined, rank: number, change: Change) => changes.push({ time: time ?? 0, rank, change });
      const begun = (vertex: (typeof update.vertexes)[number]) => ms(vertex.started) ?? Number.POSITIVE_INFINITY;
      for (const vertex of [...update.vertexes].sort((a, b) => begun(a) - begun(b) || 0)) {
        const step = stepOf(vertex.digest);
        const before = `${step.started} ${step.completed} ${step.cached} ${step.error}`;
        step.name = vertex.name || step.name;
        step.inputs = vertex.inputs;
        step.started = ms(vertex.started) ?? step.started;
        step.completed = ms(vertex.completed);
        step.cached = vertex.cached;
        step.error = vertex.error;
        if (step.number === 0 && step.started !== undefined)
          step.number = [...steps.values()].filter(({ number }) => number > 0).length + 1;
        if (`${step.started} ${step.completed} ${step.cached} ${step.error}` !== before)
          note(step.completed ?? step.started, step.completed === undefined ? 0 : 2, { step });
      }
      for (const status of update.statuses) {
        const step = stepOf(status.vertex);
        const part: Part = {
          id: status.ID,
          name: status.name || status.ID,
          current: Number(status.current),
          total: Number(status.total),
          started: ms(status.started),
          completed: ms(status.completed),
        };
        step.parts.set(status.ID, part);
        note(part.completed ?? ms(status.timestamp), 1, { step, part });
      }
      for (const log of update.logs) {
        const step = stepOf(log.vertex);
        const decoder = decoders.get(log.vertex) ?? new TextDecoder();
        decoders.set(log.vertex, decoder);
        const pieces = (step.rest + decoder.decode(log.msg, { stream: true })).split("\n");
        step.rest = pieces.pop()!;
        if (step.rest.length > MAX_LINE) {
          pieces.push(step.rest);
          step.rest = "";
        }
        for (const text of pieces) {
          const line = { text: text.replace(/\r$/, ""), time: ms(log.timestamp) ?? Date.now() };
          step.lines.push(line);
          note(line.time, 1, { step, line });
        }
        if (step.lines.length > 2 * KEPT) step.lines.splice(0, step.lines.length - KEPT);
      }
      for (const warning of update.warnings) {
        const short = Buffer.from(warning.short).toString();
        const detail = warning.detail.map((line) => Buffer.from(line).toString());
        if (short === "jubako.miss") {
          misses.push(JSON.parse(detail[0] ?? "{}") as Miss);
          continue;
        }
        const [range] = warning.ranges;
        const { info } = warning;
        warnings.push({
          short,
          detail,
          url: warning.url,
          lines:
            info && range?.start
              ? {
                  filename: info.filename,
                  text: Buffer.from(info.data).toString(),
                  start: range.start.line,
                  end: range.end?.line ?? range.start.line,
                }
              : undefined,
        });
      }
      return changes.sort((a, b) => a.time - b.time || a.rank - b.rank).map(({ change }) => change);
    },
  };
}
