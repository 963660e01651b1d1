// The JSON stream of pull, push, load and import: one object a line, as Docker's clients read them.

export interface ProgressLine {
  status?: string;
  stream?: string;
  id?: string;
  progressDetail?: { current?: number; total?: number };
  progress?: string;
  aux?: unknown;
  error?: string;
  errorDetail?: { message: string; code?: number };
}

/** Collects lines from work that goes on, for a reader that may be slower. */
export interface ProgressSink {
  line(line: ProgressLine): void;
  /** "Downloading" and the like, with a bar; at most ten a second for each id. */
  bar(id: string, status: string, current: number, total: number): void;
}

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** Four significant digits in decimal units, as Docker's units package writes them. */
export function humanSize(bytes: number): string {
  let unit = 0;
  let value = bytes;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${Number(value.toPrecision(4))}${UNITS[unit]}`;
}

function barText(current: number, total: number): string {
  if (total <= 0) return humanSize(current);
  const percent = Math.min(50, Math.floor((current / total) * 50));
  const bar = percent < 50 ? `${"=".repeat(percent)}>${" ".repeat(50 - percent)}` : `${"=".repeat(50)}>`;
  return `[${bar}]  ${humanSize(current)}/${humanSize(total)}`;
}

/** Lines held for a client that does not read. */
const MAX_HELD = 10_000;

/**
 * Runs `work` and gives its lines as a stream. Where it fails before its first line, the failure is thrown here, so that it becomes an HTTP status;
 * later, it becomes an error line.
 */
export async function streamed(
  work: (sink: ProgressSink, signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): Promise<AsyncIterable<string>> {
  const held: string[] = [];
  const bars = new Map<string, number>();
  let wake: () => void = () => {};
  let ended = false;
  let failure: { error: unknown } | undefined;
  let begun: () => void = () => {};
  const first = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const stopping = new AbortController();
  const stop = () => stopping.abort(signal.reason);
  signal.addEventListener("abort", stop, { once: true });
  if (signal.aborted) stop();
  const push = (line: ProgressLine) => {
    // how it ended is never left out
    if (held.length < MAX_HELD || line.error !== undefined || line.aux !== undefined) held.push(`${JSON.stringify(line)}\r\n`);
    wake();
    begun();
  };
  const sink: ProgressSink = {
    line: push,
    bar(id, status, current, total) {
      const now = Date.now();
      const key = `${id} ${status}`;
      if (current < total && now - (bars.get(key) ?? 0) < 100) return;
      bars.set(key, now);
      push({ status, progressDetail: { current, total }, progress: barText(current, total), id });
    },
  };
  const done = work(sink, stopping.signal)
    .catch((error: unknown) => {
      failure = { error };
    })
    .finally(() => {
      ended = true;
      signal.removeEventListener("abort", stop);
      wake();
      begun();
    });
  await first;
  if (failure && held.length === 0) throw failure.error;

  async function* lines(): AsyncGenerator<string> {
    try {
      for (;;) {
        if (held.length > 0) {
          yield held.splice(0).join("");
          continue;
        }
        if (ended) break;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      if (failure) {
        const message = failure.error instanceof Error ? failure.error.message : String(failure.error);
        yield `${JSON.stringify({ errorDetail: { message }, error: message } satisfies ProgressLine)}\r\n`;
      }
    } finally {
      // The client went away: what it asked for is given up.
      if (!ended) stopping.abort();
      await done;
    }
  }
  return lines();
}

/** The first twelve digits of a digest. */
export function shortId(digest: string): string {
  return digest.slice(digest.indexOf(":") + 1, digest.indexOf(":") + 13);
}
