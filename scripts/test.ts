// Runs the test files, each in a process of its own (tests move between namespaces, start engines and end them), and adds up. A file that hangs is
// ended with its process group. Two run at a time: end-to-end tests (test/) one after the other, after the unit tests (src/); beside them those in virtual
// machines, and those on whole systems. What takes long to make the first time is made meanwhile, and who needs it comes last.
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Glob } from "bun";
import { endNaming, processesNaming, removeMounted } from "../test/support/daemon.ts";

const FILE_TIMEOUT_MS = 600_000;
const TEST_TIMEOUT_MS = 60_000;

interface Result {
  file: string;
  passed: number;
  failed: number;
  skipped: string[];
  output: string;
  /** Processes and files that it left behind, which are gone by now. */
  left: string[];
  seconds: number;
}

const reports = mkdtempSync(join(tmpdir(), "jubako-test-"));

/** Process groups that are under way; the directories of those of tests. */
const underWay = new Map<number, string | undefined>();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(signal, () => {
    for (const pid of underWay.keys()) process.kill(-pid, "SIGKILL");
    const places = [...underWay.values()].filter((temporary) => temporary !== undefined);
    // Files take their time.
    places.forEach(endNaming);
    places.forEach(clear);
    sweep();
    rmSync(reports, { recursive: true, force: true });
    process.exit(1);
  });

/** What of a test runs or lies there when it is over goes; its names. */
function clear(temporary: string): string[] {
  const left = endNaming(temporary);
  // Bun's own are the executable's parts that it unpacks to load them, once for a user.
  left.push(...readdirSync(temporary).filter((name) => !name.startsWith(".bun-")));
  removeMounted(temporary);
  return left;
}

function attribute(tag: string, name: string): string {
  const value = new RegExp(`\\s${name}="([^"]*)"`).exec(tag)?.[1] ?? "";
  return value
    .replaceAll("&quot;", '"')
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&apos;", "'")
    .replaceAll("&#39;", "'")
    .replaceAll("&amp;", "&");
}

/** Counts from bun's JUnit report; where there is none (the process died), the file counts as one failure. */
function read(report: string): { passed: number; failed: number; skipped: string[] } | undefined {
  let xml: string;
  try {
    xml = readFileSync(report, "utf8");
  } catch {
    return undefined;
  }
  let passed = 0;
  let failed = 0;
  const skipped: string[] = [];
  for (const [whole, head] of xml.matchAll(/<testcase([^>]*?)(?:\/>|>[\s\S]*?<\/testcase>)/g)) {
    if (whole.includes("<skipped")) skipped.push(attribute(head!, "name"));
    else if (whole.includes("<failure") || whole.includes("<error")) failed++;
    else passed++;
  }
  return { passed, failed, skipped };
}

function run(file: string): Promise<Result> {
  const report = join(reports, `${file.replaceAll("/", "_")}.xml`);
  const began = performance.now();
  // Of its own; ordinary users of tests go through it.
  const temporary = mkdtempSync(join(tmpdir(), "jubako-"));
  chmodSync(temporary, 0o1777);
  return new Promise((resolve) => {
    const child = spawn(
      process.execPath,
      ["test", `./${file}`, "--timeout", String(TEST_TIMEOUT_MS), "--reporter=junit", `--reporter-outfile=${report}`],
      { detached: true, stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, TMPDIR: temporary } },
    );
    const { pid } = child;
    underWay.set(pid!, temporary);
    let output = "";
    const take = (chunk: Buffer) => {
      output += chunk.toString();
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      process.kill(-pid!, "SIGKILL");
    }, FILE_TIMEOUT_MS);
    child.on("exit", async (code) => {
      clearTimeout(timer);
      // What the tests started may hold the pipes open; it has no business after them.
      child.stdout.destroy();
      child.stderr.destroy();
      const counts = read(report) ?? { passed: 0, failed: 1, skipped: [] };
      if (code !== 0 && counts.failed === 0) counts.failed = 1;
      if (late) output += `\nended after ${FILE_TIMEOUT_MS / 1000} s\n`;
      const seconds = (performance.now() - began) / 1000;
      // A shim ends a moment after it was told to.
      for (let tries = 0; tries < 50 && processesNaming(temporary).length > 0; tries++) await sleep(100);
      underWay.delete(pid!);
      resolve({ file, ...counts, output, left: clear(temporary), seconds });
    });
  });
}

function show(result: Result): void {
  const skips = result.skipped.length ? `, ${result.skipped.length} skipped` : "";
  console.log(
    `${result.failed ? "FAIL" : "ok  "} ${result.file}: ${result.passed} passed, ${result.failed} failed${skips} (${result.seconds.toFixed(1)} s)`,
  );
  if (result.failed) console.log(result.output.replace(/^/gm, "     "));
  for (const each of result.left) console.log(`     left behind: ${each}`);
  if (!result.failed) for (const line of result.output.match(/^skip: .*$/gm) ?? []) console.log(`     ${line}`);
}

/** Runs what is in these queues, one after the other. */
async function work(queues: string[][], made: (file: string) => Promise<unknown>): Promise<Result[]> {
  const results: Result[] = [];
  for (const queue of queues) {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      await made(file);
      const result = await run(file);
      show(result);
      results.push(result);
    }
  }
  return results;
}

function find(where: string): string[] {
  if (statSync(where).isFile()) return [where];
  return [...new Glob("**/*.test.ts").scanSync(where)].map((file) => join(where, file)).sort();
}

/** Takes away what tests that were ended, or the originals they drove, left by the tests' own names: empty cgroups and bridges. */
function sweep(): void {
  for (const line of readFileSync("/proc/self/mounts", "utf8").split("\n")) {
    const [, mount, type] = line.split(" ");
    if (mount === undefined || (type !== "cgroup" && type !== "cgroup2")) continue;
    for (const name of readdirSync(mount).filter((entry) => entry.startsWith("jubako-test-"))) {
      try {
        rmdirSync(join(mount, name));
      } catch {
        // It has processes or groups in it: not empty, not ours to end.
      }
    }
  }
  for (const link of readdirSync("/sys/class/net").filter((name) => /^jubako(t\d+|bench\d)$/.test(name)))
    spawnSync("ip", ["link", "del", link]);
}

const wanted = process.argv.slice(2);
const files = (wanted.length ? wanted : ["src", "test"]).flatMap(find);

/** What takes minutes to make the first time, and the tests that need it, by their text. */
const PREPARATIONS = [
  {
    needed: /support\/(buildx|buildkitd)\.ts"|"(buildctl|crane|docker-compose-v5)"|, "registry"\]/,
    make: ["sh", "scripts/go-tools.sh", "crane", "registry", "buildctl", "frontend", "buildx", "compose", "buildkitd"],
  },
  // Tests wait for its lock; without flock they say that it is missing.
  { needed: /makeBases\(\)/, make: ["flock", "build/test-bases/lock", process.execPath, "test/bases/make.ts"] },
].map(({ needed, make }) => {
  const needing = new Set(files.filter((file) => needed.test(readFileSync(file, "utf8"))));
  return { needing, made: needing.size > 0 ? prepare(make) : undefined };
});

/** With what the tests leave of the processor. A failure is told here or by the tests that are skipped then. */
function prepare(words: string[]): Promise<void> {
  mkdirSync("build/test-bases", { recursive: true });
  return new Promise((resolve) => {
    const child = spawn("nice", words, { detached: true, stdio: ["ignore", "inherit", "inherit"] });
    const { pid } = child;
    if (pid !== undefined) underWay.set(pid, undefined);
    const over = () => {
      if (pid !== undefined) underWay.delete(pid);
      resolve();
    };
    child.on("error", over);
    child.on("exit", over);
  });
}

const [tools, bases] = PREPARATIONS.map(({ needing }) => needing);
const units: string[] = [];
/** A machine has a core, a disk and a kernel of its own, and boots for long. */
const machines: string[] = [];
const systems: string[] = [];
const others: string[] = [];
const clients: string[] = [];
for (const file of files) {
  if (file.startsWith("test/vm/")) machines.push(file);
  else if (bases!.has(file)) {
    if (tools!.has(file)) systems.push(file);
    else systems.unshift(file);
  } else if (tools!.has(file)) clients.push(file);
  else (file.startsWith("src/") ? units : others).push(file);
}
const made = (file: string) => Promise.all(PREPARATIONS.map((each) => (each.needing.has(file) ? each.made : undefined)));
// The first worker has more to do than the second one; where it has not, it takes unit tests, too.
const lanes = await Promise.all([work([machines, systems, units], made), work([units, others, clients], made)]);
const results = lanes.flat();
// Machines are noisy: what failed beside others has one more try alone. A file that needed it is named at the end.
const unsteady: string[] = [];
for (const [i, result] of results.entries()) {
  if (!result.failed) continue;
  console.log(`again, alone: ${result.file}`);
  const again = await run(result.file);
  show(again);
  if (!again.failed) unsteady.push(result.file);
  results[i] = again;
}
sweep();
rmSync(reports, { recursive: true, force: true });
const sum = (pick: (result: Result) => number) => results.reduce((n, result) => n + pick(result), 0);
for (const result of results.filter((r) => r.skipped.length))
  for (const name of result.skipped) console.log(`skipped: ${result.file}: ${name}`);
for (const file of unsteady) console.log(`unsteady: ${file} failed first and passed alone`);
console.log(`${sum((r) => r.passed)} passed, ${sum((r) => r.failed)} failed, ${sum((r) => r.skipped.length)} skipped`);
process.exit(sum((r) => r.failed) ? 1 : 0);
