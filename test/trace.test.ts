// `jubako trace`: every layer's part of a command, every instruction of the runtime's tape; and where it went wrong.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
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

  test("a client's own trace is kept where it asks for it, and only then", async () => {
    const ask = (path: string, headers: Record<string, string> = {}) =>
      fetch(`http://localhost${path}`, { unix: `${engine.dir}/docker.sock`, headers });
    const parent = (id: string) => ({ traceparent: `00-${id}-00f067aa0ba902b7-01` });
    const [wanted, other] = ["4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"];
    expect((await ask("/containers/json?all=1", { ...parent(wanted!), tracestate: "vendor=x, jubako=on" })).status).toBe(200);
    expect((await ask("/containers/json?all=1", { ...parent(other!), tracestate: "vendor=jubako=on" })).status).toBe(200);
    const spans = (await (await ask(`/jubako/trace/${wanted}`)).text())
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(spans.map(({ layer, name, parentSpanId }) => [layer, name, parentSpanId])).toContainEqual([
      "engine",
      "GET /containers/json",
      "00f067aa0ba902b7",
    ]);
    expect((await ask(`/jubako/trace/${other}`)).status).toBe(404);
    expect(readdirSync(`${engine.dir}/exec/trace`).filter((name) => name.includes(other!))).toEqual([]);
  });
});
