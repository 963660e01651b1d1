// Times and how they are told: peers take turns, the figure is the median, the statement is the ratio.

/** Milliseconds that `fn` takes. */
export function timed(fn: () => void): number {
  const began = performance.now();
  fn();
  return performance.now() - began;
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** What a tenth of the values stay below: beside other load the figure that says most. */
export function quickest(values: number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 10)]!;
}

/** Medians of `rounds` rounds in which the two sides take turns, after one round each that does not count. */
export function turns(rounds: number, theirs: () => number, ours: () => number): { theirs: number; ours: number } {
  const a: number[] = [];
  const b: number[] = [];
  theirs();
  ours();
  for (let i = 0; i < rounds; i++) {
    a.push(theirs());
    b.push(ours());
  }
  return { theirs: median(a), ours: median(b) };
}

export interface Row {
  what: string;
  unit: string;
  theirs: number;
  ours: number;
  /** What the ratio should be at least. */
  goal?: string;
}

/** One line a row: both medians and how many times better ours is. */
export function report(title: string, peer: string, rows: Row[]): void {
  console.log(`\n${title}\n`);
  console.log(`| what | ${peer} | jubako | ratio | goal |`);
  console.log("|---|---|---|---|---|");
  for (const row of rows) {
    console.log(
      `| ${row.what} | ${row.theirs.toFixed(1)} ${row.unit} | ${row.ours.toFixed(1)} ${row.unit} | ${(row.theirs / row.ours).toFixed(1)}× | ${row.goal ?? ""} |`,
    );
  }
}
