// The distribution specification's demands on registries, asked of ours and, beside it, of the CNCF's and Debian's: what they meet we meet.
import { afterAll, describe, expect, test } from "bun:test";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { endDaemon } from "./support/daemon.ts";
import { checkRegistry, type Result } from "./support/distribution-checks.ts";
import { bin, lacks, until } from "./support/engine.ts";
import { freePort } from "./support/registry.ts";

const dir = mkdtempSync(join(tmpdir(), "jubako-conformance-"));
const children: ChildProcess[] = [];
afterAll(async () => {
  for (const child of children) await endDaemon(child);
  rmSync(dir, { recursive: true, force: true });
});

async function results(name: string, command: (address: string, root: string, config: string) => string[]): Promise<Result[]> {
  const address = `127.0.0.1:${await freePort()}`;
  const root = join(dir, name);
  mkdirSync(root);
  const config = join(dir, `${name}.yml`);
  writeFileSync(
    config,
    `version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: ${root}}, delete: {enabled: true}}\nhttp: {addr: "${address}"}\n`,
  );
  const [program, ...args] = command(address, root, config) as [string, ...string[]];
  children.push(spawn(program, args, { stdio: "ignore" }));
  await until(`${name} answers`, () => fetch(`http://${address}/v2/`).catch(() => undefined));
  const all = await checkRegistry(`http://${address}`);
  const count = (result: Result["result"]) => all.filter((one) => one.result === result).length;
  console.log(`${name}: ${count("passed")} passed, ${count("failed")} failed, ${count("left out")} left out`);
  for (const { check, why } of all.filter((one) => one.result === "failed")) console.log(`   ${check}: ${why}`);
  return all;
}

describe("OCI distribution specification 1.1", () => {
  let ours: Result[] = [];
  test("jubako-registry meets all of it, also what is optional", async () => {
    ours = await results("jubako-registry", (address, root) => [bin("jubako-registry"), "serve", "--addr", address, "--root", root]);
    expect(ours.filter(({ result }) => result !== "passed")).toEqual([]);
    expect(ours.length).toBeGreaterThan(60);
  }, 30_000);

  for (const [name, program] of [
    ["the CNCF registry", "registry"],
    ["Debian's registry", "docker-registry"],
  ] as const) {
    test.skipIf(lacks(program))(
      `${name} passes nothing that ours does not`,
      async () => {
        const theirs = await results(program, (_, __, config) => [program, "serve", config]);
        const passed = new Set(ours.filter(({ result }) => result === "passed").map(({ check }) => check));
        expect(theirs.filter(({ check, result }) => result === "passed" && !passed.has(check))).toEqual([]);
        // the checks are no more than registries do
        expect(theirs.filter(({ result }) => result === "passed").length).toBeGreaterThan(40);
      },
      30_000,
    );
  }
});
