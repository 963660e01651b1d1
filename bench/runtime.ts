// The OCI runtimes by their command lines over one busybox bundle, in turns: runc and ours with cgroups; crun and ours in a view of cgroup v2 without
// cgroups for crun, which refuses hybrid hierarchies; how far the kernel's floor is; then what is left inside the shim, where nothing starts.
//   bun bench/runtime.ts [rounds] [--steps]      --steps: the time of every step of the engine's container, not of the dearest alone
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Cost, compiled, cost, cycleOf, makeBundle, peakMemory, runOf } from "./support/bundle.ts";
import { createAndStart } from "./support/in-process.ts";
import { median, quickest, type Row, report } from "./support/measure.ts";
import { shimTimes } from "./support/shim-times.ts";

const words = process.argv.slice(2).filter((word) => word !== "--steps");
const everyStep = words.length < process.argv.length - 2;
const rounds = Number(words[0] ?? 31);
const ours = new URL("../dist/bin/jubako-runtime", import.meta.url).pathname;
/** In the view of cgroup v2: the bundle's directory, where this file runs itself again. */
const inside = words[1];

type Sides = Record<string, () => Cost>;

/** Medians of a side, and what a tenth of its rounds stay below. */
interface Summary extends Cost {
  quickest: number;
}

/** The sides take turns after one round that does not count. */
function inTurns(sides: Sides): Record<string, Summary> {
  const costs = Object.fromEntries(Object.keys(sides).map((name) => [name, [] as Cost[]]));
  for (let i = 0; i <= rounds; i++)
    for (const [name, run] of Object.entries(sides))
      if (i > 0) costs[name]!.push(run());
      else run();
  const middle = (list: Cost[], of: "wall" | "cpu") => median(list.map((each) => each[of]));
  return Object.fromEntries(
    Object.entries(costs).map(([name, list]) => [
      name,
      {
        each: list[0]!.each.map((_, i) => median(list.map(({ each }) => each[i]!))),
        wall: middle(list, "wall"),
        cpu: middle(list, "cpu"),
        quickest: quickest(list.map(({ wall }) => wall)),
      },
    ]),
  );
}

function rows(what: string, goal: string, theirs: Summary, own: Summary, parts: string[] = []): Row[] {
  return [
    { what, unit: "ms", goal, theirs: theirs.wall, ours: own.wall },
    { what: `${what}: the quickest tenth`, unit: "ms", goal, theirs: theirs.quickest, ours: own.quickest },
    ...parts.map((part, i) => ({ what: `\`${part}\` alone`, unit: "ms", theirs: theirs.each[i]!, ours: own.each[i]! })),
    { what: `${what}: processor time`, unit: "ms", theirs: theirs.cpu, ours: own.cpu },
  ];
}

function compare(peer: string[], dir: string, goals: { run: string; cycle: string }): { rows: Row[]; ours: number } {
  const id = `jubako-bench-${process.pid}`;
  const own = [ours, "--root", join(dir, "state-ours")];
  const theirs = [...peer, "--root", join(dir, "state-theirs")];
  const peak = compiled("peak", dir);
  const memory = (what: string, commands: (runtime: string[]) => string[][]): Row => {
    const of = (runtime: string[]) => median(Array.from({ length: 5 }, () => peakMemory(peak, commands(runtime))));
    return { what: `${what}: peak memory (ru_maxrss)`, unit: "MB", theirs: of(theirs), ours: of(own) };
  };
  const run = inTurns({ theirs: () => cost(runOf(theirs, dir, id)), ours: () => cost(runOf(own, dir, id)) });
  const cycle = inTurns({ theirs: () => cost(cycleOf(theirs, dir, id)), ours: () => cost(cycleOf(own, dir, id)) });
  return {
    rows: [
      ...rows("`run` of a busybox bundle", goals.run, run.theirs!, run.ours!),
      memory("`run`", (runtime) => runOf(runtime, dir, id)),
      ...rows("`create`, `start`, `delete`", goals.cycle, cycle.theirs!, cycle.ours!, ["create", "start", "delete"]),
      memory("`create`, `start`, `delete`", (runtime) => cycleOf(runtime, dir, id)),
    ],
    ours: run.ours!.wall,
  };
}

function floors(dir: string, own: number): void {
  const program = compiled("floor", dir);
  const floor = inTurns({
    without: () => cost([[program, join(dir, "rootfs")]]),
    net: () => cost([[program, join(dir, "rootfs"), "net"]]),
  });
  const { without, net } = floor as { without: Summary; net: Summary };
  console.log(
    `\nThe floor (a C program with the same system calls): ${without.wall.toFixed(1)} ms, ${net.wall.toFixed(1)} ms with a network namespace. ` +
      `jubako-runtime run is ${(own - net.wall).toFixed(1)} ms above it.`,
  );
}

function tape(dir: string): void {
  const { status, stdout, stderr } = spawnSync(ours, ["explain", "--json", dir], { encoding: "utf8", maxBuffer: 64 << 20 });
  if (status !== 0) throw new Error(`explain: ${stderr}`);
  const explained = JSON.parse(stdout) as unknown;
  const steps = (Array.isArray(explained) ? explained : (explained as { steps: unknown[] }).steps) as { op?: string; text?: string }[];
  console.log(`\nThe bundle's tape has ${steps.length} instructions.`);
}

/** Of the processor, in user space; undefined where the machine does not count them. */
function processorInstructions(command: string[]): number | undefined {
  const { stderr } = spawnSync("perf", ["stat", "-x,", "-e", "instructions:u", "--", ...command], {
    encoding: "utf8",
    stdio: ["ignore", "ignore", "pipe"],
  });
  const counted = /^(\d+),.*instructions/m.exec(stderr ?? "")?.[1];
  return counted === undefined ? undefined : Number(counted);
}

function instructions(dir: string): void {
  const id = `jubako-bench-${process.pid}`;
  const [theirs, own] = [
    ["runc", "theirs"],
    [ours, "ours"],
  ].map(([program, side]) => processorInstructions(runOf([program!, "--root", join(dir, `state-${side}`)], dir, id)[0]!));
  if (theirs === undefined || own === undefined)
    console.log("\nThe processor's instructions are not counted: this machine has no counter for them, or no perf that reads it.");
  else console.log(`\nThe processor's instructions of a \`run\`, in user space: runc ${theirs}, jubako ${own}.`);
}

async function insideShim(bundle: string): Promise<void> {
  const warm = await createAndStart(bundle, rounds);
  const { createAndStart: traced, steps } = await shimTimes(Math.min(rounds, 21));
  const shown = steps.sort((a, b) => b.milliseconds - a.milliseconds).slice(0, everyStep ? steps.length : 15);
  const told = (list: number[]) => `${median(list).toFixed(1)} ms, at best ${Math.min(...list).toFixed(1)}`;
  console.log(
    `\nCreate and start where nothing starts: ${told(warm)} (goal: ≤ 4); in the shim of a running engine, every instruction traced: ${told(traced)}.\n` +
      `${steps.length} instructions of the engine's container were played; ${everyStep ? "each" : "the dearest"} of its best run:\n`,
  );
  console.log("| ms | step | why |\n|---|---|---|");
  for (const step of shown)
    console.log(`| ${step.milliseconds.toFixed(3)} | \`${step.text.slice(0, 90).replaceAll("|", "\\|")}\` | ${step.why.slice(0, 80)} |`);
}

if (inside !== undefined) {
  const { rows: crun } = compare(["crun", "--cgroup-manager=disabled"], inside, { run: "≥ 1", cycle: "≥ 1" });
  report(
    `Beside crun, which makes no cgroups (ours does), in a view of cgroup v2 without controllers (${rounds} rounds in turns)`,
    "crun",
    crun,
  );
  process.exit(0);
}
const dir = mkdtempSync(join(tmpdir(), "jubako-bench-runtime-"));
try {
  mkdirSync(dir, { recursive: true });
  makeBundle(dir);
  const runc = compare(["runc"], dir, { run: "≥ 3", cycle: "≥ 3" });
  report(`OCI runtimes by their command lines (medians of ${rounds} rounds in turns)`, "runc", runc.rows);
  if (spawnSync("crun", ["--version"]).status === 0) {
    const view = 'umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup || exit 1; exec "$@"';
    const again = [process.execPath, import.meta.path, String(rounds), dir];
    spawnSync("unshare", ["-m", "--propagation", "private", "sh", "-c", view, "sh", ...again], { stdio: "inherit" });
  } else console.log("\ncrun is not installed: no comparison with it");
  floors(dir, runc.ours);
  tape(dir);
  instructions(dir);
  await insideShim(dir);
} finally {
  rmSync(dir, { recursive: true, force: true });
}
