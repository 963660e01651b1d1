// Memory (PSS: shared pages counted in proportion) of the idle engine and manager, and of each of twenty running containers, dockerd beside jubakod.
//   bun bench/memory.ts
import { readFileSync } from "node:fs";
import { type Row, report } from "./support/measure.ts";
import { must, type Peer, startDockerd, startJubakod } from "./support/peers.ts";

const CONTAINERS = 20;

function pssKiB(pid: number): number {
  try {
    return Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

const total = (pids: number[]) => pids.reduce((sum, pid) => sum + pssKiB(pid), 0) / 1024;
const settle = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function weigh(peer: Peer): Promise<{ idle: number; perContainer: number; busy: number }> {
  must(peer, "run", "--rm", "busybox", "true");
  await settle(5000);
  const idle = total(peer.daemons());
  const holdersBefore = total(peer.shims());
  for (let i = 0; i < CONTAINERS; i++) must(peer, "run", "-d", "--name", `weigh${i}`, "busybox", "sleep", "1000");
  await settle(5000);
  const sleeping = new Set(
    must(peer, "inspect", "--format", "{{.State.Pid}}", ...Array.from({ length: CONTAINERS }, (_, i) => `weigh${i}`))
      .trim()
      .split("\n")
      .map(Number),
  );
  const holders = peer.shims().filter((pid) => !sleeping.has(pid));
  const perContainer = total(holders) / CONTAINERS;
  const busy = total(peer.daemons());
  must(peer, "rm", "-f", ...Array.from({ length: CONTAINERS }, (_, i) => `weigh${i}`));
  console.error(
    `${peer.name}: idle ${idle.toFixed(1)} MB, with ${CONTAINERS} containers ${busy.toFixed(1)} MB; holders before ${holdersBefore.toFixed(1)} MB`,
  );
  return { idle, perContainer, busy };
}

const peer = await startDockerd();
let theirs: Awaited<ReturnType<typeof weigh>>;
try {
  theirs = await weigh(peer);
} finally {
  await peer.stop();
}
const own = await startJubakod();
let ours: Awaited<ReturnType<typeof weigh>>;
try {
  ours = await weigh(own);
} finally {
  await own.stop();
}
const rows: Row[] = [
  { what: "engine + manager, idle", unit: "MB", theirs: theirs.idle, ours: ours.idle, goal: "≤ 60 MB" },
  { what: `engine + manager with ${CONTAINERS} containers`, unit: "MB", theirs: theirs.busy, ours: ours.busy },
  {
    what: `what holds one of ${CONTAINERS} containers (shims and keepers, shared out)`,
    unit: "MB",
    theirs: theirs.perContainer,
    ours: ours.perContainer,
    goal: "≥ 1×",
  },
];
report("Memory, PSS", "dockerd + containerd", rows);
