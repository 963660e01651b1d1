// The waterfall: a line a span, with when it began, how long it took, in which layer, and a bar on the time axis.
import type { Line } from "./tree.ts";
import { layerTimes } from "./tree.ts";

export interface RenderOptions {
  title: string;
  /** Columns of the terminal. */
  width: number;
  /** Layers in colours. */
  color: boolean;
}

const COLORS: Record<string, number> = { cli: 36, engine: 34, manager: 35, shim: 33, runtime: 32 };
const EIGHTHS = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

export function render(lines: readonly Line[], options: RenderOptions): string {
  const total = Math.max(...lines.map((line) => line.start + line.length), 0.001);
  const paint = (layer: string, text: string) => (options.color && COLORS[layer] ? `\x1b[${COLORS[layer]}m${text}\x1b[0m` : text);
  const layers = Math.max(5, ...lines.map((line) => line.span.layer.length));
  const longest = Math.min(72, Math.max(...lines.map((line) => line.depth * 2 + [...shown(line)].length)));
  const fixed = 9 + 1 + 9 + 2 + layers + 2 + 1;
  const bars = Math.max(20, Math.min(60, options.width - fixed - longest));
  const names = Math.max(24, Math.min(longest, options.width - fixed - bars));
  const out = [
    `${options.title}\n\n`,
    `${"start ms".padStart(9)} ${"took ms".padStart(9)}  ${"layer".padEnd(layers)}  ${"what".padEnd(names)} \n`,
  ];
  for (const line of lines) {
    const { span, depth, start, length } = line;
    const name = fit("  ".repeat(depth) + shown(line), names);
    const failed = span.error === undefined ? "" : `  ✗ ${span.error}`;
    const text = `${start.toFixed(3).padStart(9)} ${length.toFixed(3).padStart(9)}  ${paint(span.layer, span.layer.padEnd(layers))}  ${name} ${paint(span.layer, bar(start / total, length / total, bars))}${failed}`;
    out.push(`${text.trimEnd()}\n`);
  }
  const times = layerTimes(lines).map(({ layer, spans, ms }) => `${layer} ${ms.toFixed(2)} ms in ${spans} span${spans === 1 ? "" : "s"}`);
  out.push(`\n${total.toFixed(2)} ms in all; each layer by itself: ${times.join(", ")}\n`);
  return out.join("");
}

/** Long ids are cut as everywhere else. */
function shown({ span }: Line): string {
  return span.name.replace(/\b([0-9a-f]{12})[0-9a-f]{52}\b/g, "$1");
}

function fit(text: string, width: number): string {
  const characters = [...text];
  if (characters.length <= width) return text + " ".repeat(width - characters.length);
  return `${characters.slice(0, width - 1).join("")}…`;
}

/** At least a sliver, so that the shortest instruction can be seen. */
function bar(from: number, share: number, width: number): string {
  const before = Math.min(width - 1, Math.floor(from * width));
  const eighths = Math.max(1, Math.min((width - before) * 8, Math.round(share * width * 8)));
  return " ".repeat(before) + "█".repeat(Math.floor(eighths / 8)) + EIGHTHS[eighths % 8];
}
