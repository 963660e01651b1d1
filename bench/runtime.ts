// The OCI runtimes by their command lines over one busybox bundle, in turns: runc and ours with cgroups; crun and ours in a view of cgroup v2 without
// cgroups for crun, which refuses hybrid hierarchies; how far the kernel's floor is; then what is left inside the shim, where nothing starts.
//   bun bench/runtime.ts [rounds]
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Cost, cost, cycleOf, makeBundle, runOf } from "./support/bundle.ts";
import { createAndStart } from "./support/in-process.ts";
import { median, type Row, report } from "./support/measure.ts";
import { shimTimes } from "./support/shim-times.ts";

const rounds = Number(process.argv[2] ?? 31);
const ours = new URL("../dist/bin/jubako-runtime", import.meta.url).pathname;
/** In the view of cgroup v2: the bundle's directory, where this file runs itself again. */
const inside = process.argv[3];

type Sides = Record<string, () => Cost>;

/** Medians of each side, which take turns after one round that does not count. */
function inTurns(sides: Sides): Record<string, Cost> {
  const costs = Object.fromEntries(Object.keys(sides).map((name) => [name, [] as Cost[]]));
  for (let i = 0; i <= rounds; i++)
    for (const [name, run] of Object.entries(sides))
      if (i > 0) costs[name]!.push(run());
      else run();
  const middle = (list: Cost[], of: keyof Cost) => median(list.map((each) => each[of]));
  return Object.fromEntries(
    Object.entries(costs).map(([name, list]) => [
      name,
      { wall: middle(list, "wall"), cpu: middle(list, "cpu"), memory: middle(list, "memory") },
    ]),
  );
}

function rows(what: string, goal: string, theirs: Cost, own: Cost): Row[] {
  return [
    { what, unit: "ms", goal, theirs: theirs.wall, ours: own.wall },
    { what: `${what}: processor time`, unit: "ms", theirs: theirs.cpu, ours: own.cpu },
    { what: `${what}: peak memory (ru_maxrss)`, unit: "MB", theirs: theirs.memory, ours: own.memory },
  ];
}

function compare(peer: string[], dir: string, goals: { run: string; cycle: string }): { rows: Row[]; ours: number } {
  const id = `jubako-bench-${process.pid}`;
  const own = [ours, "--root", join(dir, "state-ours")];
  const theirs = [...peer, "--root", join(dir, "state-theirs")];
  const run = inTurns({ theirs: () => cost(runOf(theirs, dir, id)), ours: () => cost(runOf(own, dir, id)) });
  const cycle = inTurns({ theirs: () => cost(cycleOf(theirs, dir, id)), ours: () => cost(cycleOf(own, dir, id)) });
  return {
    rows: [
      ...rows("`run` of a busybox bundle", goals.run, run.theirs!, run.ours!),
      ...rows("`create`, `start`, `delete`", goals.cycle, cycle.theirs!, cycle.ours!),
    ],
    ours: run.ours!.wall,
  };
}

function floors(dir: string, own: number): void {
  const program = join(dir, "floor");
  const source = new URL("support/floor.c", import.meta.url).pathname;
  const built = spawnSync("gcc", ["-O2", "-o", program, source], { encoding: "utf8" });
  if (built.status !== 0) throw new Error(`gcc: ${built.stderr ?? built.error}`);
  const floor = inTurns({
    without: () => cost([[program, join(dir, "rootfs")]]),
    net: () => cost([[program, join(dir, "rootfs"), "net"]]),
  });
  const { without, net } = floor as { without: Cost; net: Cost };
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

async function insideShim(bundle: string): Promise<void> {
  const warm = await createAndStart(bundle, rounds);
  const { createAndStart: traced, steps } = await shimTimes(Math.min(rounds, 21));
  const told = (list: number[]) => `${median(list).toFixed(1)} ms, at best ${Math.min(...list).toFixed(1)}`;
  console.log(
    `\nCreate and start where nothing starts: ${told(warm)} (goal: ≤ 4); in the shim of a running engine, every instruction traced: ${told(traced)}.\n` +
      `${steps.length} instructions of the engine's container were played; the dearest of its best run:\n`,
  );
  console.log("| ms | step | why |\n|---|---|---|");
  for (const step of steps.sort((a, b) => b.milliseconds - a.milliseconds).slice(0, 15))
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
  await insideShim(dir);
} finally {
  rmSync(dir, { recursive: true, force: true });
}
