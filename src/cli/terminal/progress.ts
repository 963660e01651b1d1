// The engine's progress messages: bars that are redrawn on a terminal, plain lines elsewhere.
import type { ProgressMessage } from "../../client/index.ts";
import { humanSize } from "../units.ts";

/** "[=====>      ]  1.2MB/3.4MB"; "" where nothing is known. */
export function bar(detail: NonNullable<ProgressMessage["progressDetail"]>, width: number): string {
  const current = detail.current ?? 0;
  const total = detail.total ?? 0;
  if (current <= 0 && total <= 0) return "";
  const counted = (n: number) => (detail.units && detail.units !== "bytes" ? String(n) : humanSize(n));
  const suffix = detail.units && detail.units !== "bytes" ? ` ${detail.units}` : "";
  if (total <= 0) return `${counted(current).padStart(8)}${suffix}`;
  const half = Math.min(50, Math.trunc(Math.trunc((current / total) * 100) / 2));
  const box = width > 110 ? `[${"=".repeat(half)}>${" ".repeat(50 - half)}] ` : "";
  if (detail.hidecounts) return box;
  return (
    box + (current > total ? `${counted(current).padStart(8)}${suffix}` : `${counted(current).padStart(8)}/${counted(total)}${suffix}`)
  );
}

export interface ProgressOptions {
  write: (text: string) => void;
  terminal: boolean;
  width?: number | undefined;
  aux?: (value: unknown) => void;
}

/** Shows the stream to its end; throws what it reports as an error. */
export async function showProgress(messages: AsyncIterable<ProgressMessage>, options: ProgressOptions): Promise<void> {
  const { write, terminal, width = 200 } = options;
  let lines = new Map<string, number>();
  for await (const message of messages) {
    if (message.aux !== undefined && message.aux !== null) {
      options.aux?.(message.aux);
      continue;
    }
    if (message.errorDetail || message.error) throw new Error(message.errorDetail?.message || message.error || "unknown error");
    const hasBar = message.progressDetail !== undefined && message.progressDetail !== null;
    let below = 0;
    if (message.id && (hasBar || message.progress)) {
      let line = lines.get(message.id);
      if (line === undefined) {
        line = lines.size;
        lines.set(message.id, line);
        if (terminal) write("\n");
      }
      below = lines.size - line;
      if (terminal) write(`\x1b[${below}A`);
    } else {
      lines = new Map();
    }
    const text = render(message, hasBar, terminal, width);
    if (text) write(text);
    if (message.id && terminal && below > 0) write(`\x1b[${below}B`);
  }
}

function render(message: ProgressMessage, hasBar: boolean, terminal: boolean, width: number): string {
  const drawn = hasBar ? bar(message.progressDetail!, width) : "";
  let text = "";
  let end = "";
  if (terminal && !message.stream && hasBar) {
    text = "\x1b[2K\r";
    end = "\r";
  } else if (drawn !== "") {
    return "";
  }
  if (message.id) text += `${message.id}: `;
  if (hasBar && terminal) return `${text}${message.status ?? ""} ${drawn}${end}`;
  if (message.progress) return `${text}${message.status ?? ""} ${message.progress}${end}`;
  if (message.stream) return `${text}${message.stream}${end}`;
  return `${text}${message.status ?? ""}${end}\n`;
}
