// Places in a text, shown to people.

/** Lines of the file, from 1, both inclusive. */
export interface Range {
  start: number;
  end: number;
}

/** How many lines around the place are shown. */
const AROUND = 2;

/** The lines around a place, numbered, the guilty ones marked, and a caret below the word that `near` says. */
export function excerpt(text: string, name: string, range: Range, near?: string): string {
  const lines = text.split("\n").map((line) => line.replace(/\r$/, ""));
  const from = Math.max(1, range.start - AROUND);
  const to = Math.min(lines.length, range.end + AROUND);
  const out = [`${name}:${range.start}`, "--------------------"];
  for (let n = from; n <= to; n++) {
    const line = lines[n - 1]!;
    const guilty = n >= range.start && n <= range.end;
    out.push(`${String(n).padStart(4)} | ${guilty ? ">>>" : "   "} ${line}`.trimEnd());
    if (n !== range.start) continue;
    const at = near ? line.indexOf(near) : line.search(/\S/);
    if (at >= 0) out.push(`     |     ${line.slice(0, at).replace(/[^\t]/g, " ")}${"^".repeat(Math.max(1, near?.length ?? 1))}`);
  }
  out.push("--------------------");
  return out.join("\n");
}
