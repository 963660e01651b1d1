// The binding under AddressSanitizer and UndefinedBehaviorSanitizer, with arguments of every kind: it throws or answers, and touches nothing else.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";

const root = `${import.meta.dir}/../..`;
let directory = "";
let missing: string | undefined;

beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/jubako-binding-`);
  const flags = ["-std=gnu11", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fPIC", "-shared"];
  const include = ["-I", `${root}/node_modules/node-api-headers/include`];
  try {
    execFileSync("gcc", [...flags, ...include, `${root}/native/syscall.c`, "-o", `${directory}/binding.node`], { stdio: "ignore" });
  } catch {
    missing = "no gcc here, or one without sanitizers";
    console.log(`skip: ${missing}`);
  }
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Runs in a process of its own, where the sanitizers' libraries come first. */
const script = (seed: number) => `
const binding = require(${JSON.stringify(`${directory}/binding.node`)});
let state = ${seed};
const random = (n) => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) % n;
const detached = () => { const b = new Uint8Array(64); structuredClone(b.buffer, { transfer: [b.buffer] }); return b; };
const values = [
  () => random(100) - 50, () => 2 ** 53, () => -1, () => 1.5, () => NaN, () => Infinity, () => 2n ** 63n, () => -(2n ** 70n), () => 5n,
  () => undefined, () => null, () => true, () => Symbol("x"), () => ({}), () => [], () => () => {}, () => "", () => "text", () => "a\\0b",
  () => "x".repeat(random(100000)), () => "\\ud800", () => new Uint8Array(random(5000)), () => new Uint8Array(0), detached,
  () => new Int32Array(random(100)).fill(-1), () => new BigUint64Array(4), () => new ArrayBuffer(16), () => new DataView(new ArrayBuffer(8)),
  () => Buffer.alloc(32).subarray(random(33)), () => new SharedArrayBuffer(8),
];
const some = (n) => Array.from({ length: n }, () => values[random(values.length)]());
// Calls that do nothing lasting, and write no more than the buffers hold that they are given with: those with numbers only, and none at all.
const harmless = [39, 102, 110, 104, 186, 100000, -1];
let threw = 0;
const attempt = (fn) => { try { return fn(); } catch (error) { threw++; if (!(error instanceof Error)) throw error; } };
for (let i = 0; i < 3000; i++) {
  attempt(() => binding.syscall(harmless[random(harmless.length)], ...some(random(9))));
  attempt(() => binding.syscall(...some(0)));
  attempt(() => binding.address(...some(random(3))));
  // Never a descriptor that exists, never addresses of strings that do.
  attempt(() => binding.spawn(...some(random(3))));
  // Of a thread that waits for no descriptor nothing is left.
  attempt(() => binding.poller(-1, ...some(random(3))));
  attempt(() => binding.poller("1", ...some(random(3))));
}
const buffer = new Uint8Array(4096);
const length = binding.syscall(79, buffer, buffer.length);
const cwd = new TextDecoder().decode(buffer.subarray(0, length - 1));
console.log(JSON.stringify({ threw: threw > 1000, cwd: cwd === process.cwd(), pid: binding.syscall(39) === process.pid }));
process.exit(0);
`;

test("no argument makes it touch what is not its own", () => {
  if (missing) return;
  const library = (name: string) => execFileSync("gcc", [`-print-file-name=${name}`], { encoding: "utf8" }).trim();
  const file = `${directory}/fuzz.mjs`;
  for (const seed of [1, 20261121]) {
    writeFileSync(file, script(seed));
    const env = {
      ...process.env,
      LD_PRELOAD: `${library("libasan.so")}:${library("libubsan.so")}`,
      // JavaScriptCore's own memory is not ASan's to judge.
      ASAN_OPTIONS: `detect_leaks=0:verify_asan_link_order=0:log_path=${directory}/asan`,
    };
    const run = spawnSync(process.execPath, [file], { env, encoding: "utf8", timeout: 50_000 });
    expect({ status: run.status, stdout: run.stdout, signal: run.signal }).toEqual({
      status: 0,
      stdout: '{"threw":true,"cwd":true,"pid":true}\n',
      signal: null,
    });
  }
});

test("all the C there is takes fewer than 700 lines", () => {
  const lines = readdirSync(`${root}/native`).map((name) => readFileSync(`${root}/native/${name}`, "utf8").trimEnd().split("\n").length);
  expect(lines.reduce((sum, each) => sum + each)).toBeLessThan(700);
});
