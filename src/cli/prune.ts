// What every prune command does: warn, ask, request, report.
import type { PruneReport } from "../client/index.ts";
import type { Cli } from "./command.ts";
import { bool, filter } from "./flags.ts";
import { humanSize } from "./units.ts";

export const pruneFlags = {
  filter: filter('Provide filter values (e.g. "label=<key>=<value>")', ""),
  force: bool("f", "Do not prompt for confirmation"),
};

/** The user's filters and those of config.json (`pruneFilters`), which a filter of the same label on the command line overrides. */
export function pruneFilters(cli: Cli, given: Record<string, string[]>): Record<string, string[]> {
  const filters: Record<string, string[]> = Object.fromEntries(Object.entries(given).map(([key, values]) => [key, [...values]]));
  for (const entry of cli.config.pruneFilters ?? []) {
    const at = entry.indexOf("=");
    if (at < 0) continue;
    const [key, value] = [entry.slice(0, at), entry.slice(at + 1)];
    if (key === "label" && filters["label!"]?.includes(value)) continue;
    if (key === "label!" && filters.label?.includes(value)) continue;
    filters[key] = [...(filters[key] ?? []), value];
  }
  return filters;
}

/** Asks on the terminal; anything but y is no. */
export async function confirm(cli: Cli, warning: string): Promise<boolean> {
  cli.out(`${warning}\nAre you sure you want to continue? [y/N] `);
  const { inputChunks } = await import("./terminal/input.ts");
  let text = "";
  for await (const chunk of inputChunks(0)) {
    text += new TextDecoder().decode(chunk);
    if (text.includes("\n")) break;
  }
  return text.split("\n")[0]!.trim().toLowerCase() === "y";
}

export function describe(title: string, items: readonly string[] | null | undefined): string {
  return items && items.length > 0 ? `${title}:\n${items.map((item) => `${item}\n`).join("")}\n` : "";
}

export function describeImages(report: PruneReport): string {
  const lines = (report.ImagesDeleted ?? []).map((item) => (item.Untagged ? `untagged: ${item.Untagged}` : `deleted: ${item.Deleted}`));
  return describe("Deleted Images", lines);
}

export function reclaimed(bytes: number): string {
  return `Total reclaimed space: ${humanSize(bytes)}\n`;
}
