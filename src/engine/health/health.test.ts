import { expect, test } from "bun:test";
import { judge, schedule } from "./monitor.ts";

test("the probe and its times", () => {
  expect(schedule(undefined, undefined)).toBeUndefined();
  expect(schedule({ Test: ["NONE"] }, undefined)).toBeUndefined();
  expect(schedule({ Test: ["CMD", "a", "b"] }, undefined)).toMatchObject({
    args: ["a", "b"],
    intervalMs: 30_000,
    timeoutMs: 30_000,
    retries: 3,
  });
  expect(schedule({ Test: ["CMD-SHELL", "a b"], Interval: 5e8, Retries: 1 }, ["/bin/bash", "-ec"])).toMatchObject({
    args: ["/bin/bash", "-ec", "a b"],
    intervalMs: 500,
    retries: 1,
  });
});

test("failures count after the start period, and a success makes healthy at once", () => {
  const plan = schedule({ Test: ["CMD", "x"], Retries: 2, StartPeriod: 1e9 }, undefined)!;
  const result = (ExitCode: number) => ({ Start: "", End: "", ExitCode, Output: "" });
  let health = judge({ Status: "starting", FailingStreak: 0, Log: [] }, result(1), plan, 500);
  expect(health).toMatchObject({ Status: "starting", FailingStreak: 0 });
  health = judge(health, result(1), plan, 1500);
  expect(health).toMatchObject({ Status: "starting", FailingStreak: 1 });
  health = judge(health, result(1), plan, 2500);
  expect(health).toMatchObject({ Status: "unhealthy", FailingStreak: 2 });
  for (let i = 0; i < 4; i++) health = judge(health, result(0), plan, 3500);
  expect(health).toMatchObject({ Status: "healthy", FailingStreak: 0 });
  expect(health.Log!.length).toBe(5);
});
