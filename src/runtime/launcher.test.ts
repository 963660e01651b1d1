import { afterAll, beforeAll, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runtimeLauncher } from "./launcher.ts";

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "jubako-launcher-"));
  mkdirSync(join(dir, "bin"));
  writeFileSync(join(dir, "bin/jubako-runtime"), runtimeLauncher(), { mode: 0o755 });
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function run(program: string, args: string[], env: Record<string, string>): { status: number | null; out: string; error: string } {
  const { exitCode, stdout, stderr } = Bun.spawnSync([join(dir, program), ...args], { env });
  return { status: exitCode, out: stdout.toString(), error: stderr.toString() };
}

test("the launcher runs the program beside it, with the compilers off and everything else as it was", () => {
  const missing = run("bin/jubako-runtime", [], {});
  expect(missing.status).toBe(127);
  expect(missing.error).toContain("../jubako is not there");
  copyFileSync("/usr/bin/env", join(dir, "jubako"));
  symlinkSync("bin/jubako-runtime", join(dir, "elsewhere"));
  for (const program of ["bin/jubako-runtime", "elsewhere"]) {
    expect(run(program, [], { A: "1", B: "two words" }).out.split("\n").sort()).toEqual(["", "A=1", "B=two words", "BUN_JSC_useJIT=0"]);
    expect(run(program, [], {}).out).toBe("BUN_JSC_useJIT=0\n");
    expect(run(program, ["/bin/sh", "-c", 'printf "%s|" "$@"', "x", "", "a b"], {}).out).toBe("|a b|");
  }
});

test("an environment that it has no room for stays as it is", () => {
  const many = Object.fromEntries(Array.from({ length: 9000 }, (_, i) => [`V${i}`, "x"]));
  const { status, out } = run("bin/jubako-runtime", [], many);
  expect([status, out.split("\n").length]).toEqual([0, 9001]);
  expect(out).not.toContain("BUN_JSC");
});
