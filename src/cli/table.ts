// Columns as Go's text/tabwriter aligns them: a column is the run of neighbouring lines that have a cell ended by a tab in it.

export interface TableStyle {
  minWidth: number;
  padding: number;
}

/** What docker's lists use. */
export const LIST_STYLE: TableStyle = { minWidth: 10, padding: 3 };

const width = (text: string) => (/^[\x20-\x7e]*$/.test(text) ? text.length : [...text].length);

/** Aligns the cells (separated by tabs) of `text`, line by line; the last cell of a line is not padded. */
export function align(text: string, style: TableStyle = LIST_STYLE): string {
  const lines = text.split("\n").map((line) => line.split("\t"));
  const widths: number[][] = lines.map(() => []);
  const columns = Math.max(...lines.map((cells) => cells.length));
  for (let column = 0; column < columns; column++) {
    for (let first = 0; first < lines.length; first++) {
      if (lines[first]!.length - 1 <= column) continue;
      let last = first;
      let most = style.minWidth;
      while (last < lines.length && lines[last]!.length - 1 > column) {
        const cell = width(lines[last]![column]!);
        most = Math.max(most, cell + style.padding);
        last++;
      }
      for (let i = first; i < last; i++) widths[i]![column] = most;
      first = last - 1;
    }
  }
  return lines
    .map((cells, i) => cells.map((cell, j) => (j === cells.length - 1 ? cell : cell + " ".repeat(widths[i]![j]! - width(cell)))).join(""))
    .join("\n");
}
