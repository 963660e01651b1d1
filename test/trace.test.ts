// `jubako trace`: every layer's part of a command, every instruction of the runtime's tape; and where it went wrong.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { lacks, startEngine, type TestEngine } from "./support/engine.ts";

describe.skipIf(lacks("docker"))("trace", () => {
  let engine: TestEngine;
  beforeAll(async () => {
    engine = await startEngine();
  });
  afterAll(() => engine?.stop());

  const trace = (...args: string[]) => {
    const { status, stdout, stderr } = engine.jubako("trace", ...args);
    return { status, lines: `${stdout}${stderr}`.split("\n") };
  };
  const of = (lines: string[], layer: string) => lines.filter((line) => new RegExp(`^ *[\\d.]+ +[\\d.]+  ${layer} `).test(line));

  test("a run passes all layers, down to the system calls and the program's first instruction", () => {
    const { status, lines } = trace("run", "--rm", "busybox", "true");
    expect(status).toBe(0);
    for (const layer of ["cli", "engine", "manager", "shim", "runtime"]) expect(of(lines, layer).length).toBeGreaterThan(0);
    const steps = of(lines, "runtime").join("\n");
    for (const call of ["mount", "pivot_root", "execve"]) expect(steps).toContain(`${call}(`);
    expect(steps).toContain("first instruction of the program");
    expect(lines.some((line) => line.includes("✗"))).toBe(false);
  });

  test("a tape that failed shows all that was played, and which instruction failed", () => {
    const { status, lines } = trace("run", "--rm", "-w", "/etc/passwd", "busybox", "true");
    expect(status).toBe(125);
    const steps = of(lines, "runtime");
    const failed = steps.filter((line) => /\w\(.*✗/.test(line));
    expect(failed.length).toBe(1);
    expect(failed[0]).toMatch(/chdir\("\/etc\/passwd"\).*✗ chdir to cwd .* failed: not a directory/);
    expect(steps.join("\n")).toContain("pivot_root(");
    expect(steps.join("\n")).not.toContain("execve(");
  });
});
