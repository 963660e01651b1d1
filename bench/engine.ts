// Container starts, exec, removal and lists by the same docker CLI against Debian's dockerd and against jubakod, in one run.
//   bun bench/engine.ts [rounds]
import { spawn, spawnSync } from "node:child_process";
import { median, type Row, report, timed, turns } from "./support/measure.ts";
import { DOCKER, must, type Peer, startDockerd, startJubakod } from "./support/peers.ts";

const rounds = Number(process.argv[2] ?? 11);

function call(peer: Peer, program: string, ...args: string[]): number {
  return timed(() => {
    const result = spawnSync(program, ["-H", peer.host, ...args], { stdio: ["ignore", "ignore", "pipe"] });
    if (result.status !== 0) throw new Error(`${peer.name}: ${program} ${args.join(" ")}: ${result.stderr}`);
  });
}

async function together(peer: Peer, commands: string[][]): Promise<number> {
  const began = performance.now();
  await Promise.all(
    commands.map(
      (args) =>
        new Promise<void>((resolve, reject) => {
          const child = spawn(DOCKER, ["-H", peer.host, ...args], { stdio: ["ignore", "ignore", "inherit"] });
          child.on("exit", (code) => (code === 0 ? resolve() : reject(new Error(`${peer.name}: docker ${args.join(" ")}: ${code}`))));
        }),
    ),
  );
  return performance.now() - began;
}

const theirs = await startDockerd();
const ours = await startJubakod().catch(async (error: unknown) => {
  await theirs.stop();
  throw error;
});
try {
  const rows: Row[] = [];
  const measure = (what: string, goal: string, ...args: string[]) => {
    const result = turns(
      rounds,
      () => call(theirs, DOCKER, ...args),
      () => call(ours, DOCKER, ...args),
    );
    rows.push({ what, unit: "ms", goal, ...result });
  };
  measure("`run --rm busybox true`, bridge", "≥ 4, 8", "run", "--rm", "busybox", "true");
  measure("`run --rm --network none busybox true`", "≥ 4", "run", "--rm", "--network", "none", "busybox", "true");
  measure("`run --rm --network host busybox true`", "", "run", "--rm", "--network", "host", "busybox", "true");
  for (const peer of [theirs, ours]) must(peer, "run", "-d", "--name", "holder", "busybox", "sleep", "1000");
  measure("`exec holder true`", "≥ 3", "exec", "holder", "true");
  for (const peer of [theirs, ours]) must(peer, "rm", "-f", "holder");

  const names = Array.from({ length: 20 }, (_, i) => `many${i}`);
  const starts: Record<string, number[]> = { dockerd: [], jubakod: [] };
  const removals: Record<string, number[]> = { dockerd: [], jubakod: [] };
  for (let i = 0; i < 3; i++) {
    for (const peer of [theirs, ours]) {
      starts[peer.name]!.push(
        await together(
          peer,
          names.map((name) => ["run", "-d", "--name", name, "busybox", "sleep", "1000"]),
        ),
      );
      removals[peer.name]!.push(call(peer, DOCKER, "rm", "-f", ...names));
    }
  }
  rows.push({ what: "twenty `run -d` at once", unit: "ms", goal: "≥ 5", theirs: median(starts.dockerd!), ours: median(starts.jubakod!) });
  rows.push({ what: "`rm -f` of the twenty", unit: "ms", theirs: median(removals.dockerd!), ours: median(removals.jubakod!) });

  for (const peer of [theirs, ours]) for (let i = 0; i < 100; i++) must(peer, "create", "--name", `listed${i}`, "busybox", "true");
  measure("`ps -a` with a hundred containers", "", "ps", "-a");
  measure("`version`", "", "version");
  // Our own command line over our own engine, in turns with docker's.
  const cli = new URL("../dist/bin/jubako", import.meta.url).pathname;
  const own = (...args: string[]) => call(ours, cli, ...args);
  const lists = turns(
    rounds,
    () => call(ours, DOCKER, "version"),
    () => own("ps", "-a"),
  );
  report(`Containers by the docker CLI (medians of ${rounds} rounds in turns)`, "dockerd", rows);
  const list = rows.find((row) => row.what.startsWith("`ps -a`"))!;
  const version = rows.find((row) => row.what === "`version`")!;
  const times = (of: number, by: number) => `${(of / by).toFixed(2)} times`;
  console.log(`
"\`ps -a\` with a hundred containers no slower than \`docker version\`", read in each way:

| \`ps -a\` with a hundred containers, jubakod | beside | takes |
|---|---|---|
| docker CLI, ${list.ours.toFixed(1)} ms | \`docker version\` on jubakod, ${version.ours.toFixed(1)} ms | ${times(list.ours, version.ours)} as long |
| docker CLI, ${list.ours.toFixed(1)} ms | \`docker version\` on dockerd, ${version.theirs.toFixed(1)} ms | ${times(list.ours, version.theirs)} as long |
| docker CLI, ${list.ours.toFixed(1)} ms | \`docker ps -a\` on dockerd, ${list.theirs.toFixed(1)} ms | ${times(list.ours, list.theirs)} as long |
| jubako CLI, ${lists.ours.toFixed(1)} ms | \`docker version\` on jubakod, ${lists.theirs.toFixed(1)} ms | ${times(lists.ours, lists.theirs)} as long |`);
} finally {
  await ours.stop();
  await theirs.stop();
}
