import { expect, test } from "bun:test";
import { checkProcessShape, checkSpecShape } from "./shape.ts";
import { exampleSpec } from "./spec.ts";

const full = () => {
  const spec = exampleSpec();
  spec.hooks = { prestart: [{ path: "/x", args: ["x"], timeout: 3 }] };
  Object.assign(spec.linux!, {
    seccomp: { defaultAction: "SCMP_ACT_ALLOW", syscalls: [{ names: ["a"], action: "x", args: [{ index: 0, value: 1, op: "y" }] }] },
    timeOffsets: { boottime: { secs: 1 } },
    sysctl: { "net.x": "1" },
  });
  spec.annotations = { a: "b" };
  return spec;
};

test("what is well-formed passes, with null and with members that nobody knows", () => {
  checkSpecShape(full());
  checkSpecShape({ ...full(), hostname: null, later: { anything: [1] }, linux: { resources: { devices: null, newer: 1 } } });
});

test("a wrong type anywhere is told with its place", () => {
  expect(() => checkSpecShape({ linux: { resources: { memory: { limit: "1g" } } } })).toThrow(
    "config.json: linux.resources.memory.limit must be an integer",
  );
  expect(() => checkSpecShape({ mounts: [{ destination: "/a" }, { type: "x" }] })).toThrow("config.json: mounts[1] has no destination");
  expect(() => checkProcessShape({ rlimits: [{ type: "x", soft: 1.5, hard: 2 }] })).toThrow("process: rlimits[0].soft must be an integer");
  expect(() => checkSpecShape([])).toThrow("config.json must be an object");
  // Every leaf of a whole one, made something else.
  let leaves = 0;
  const walk = (value: unknown, put: (value: unknown) => void) => {
    if (typeof value === "object" && value !== null)
      for (const [name, member] of Object.entries(value)) {
        walk(member, (other) => {
          (value as Record<string, unknown>)[name] = other;
        });
      }
    for (const wrong of [{ x: [] }, [{}], "text", 1.5, true]) {
      if (typeof wrong === typeof value && Array.isArray(wrong) === Array.isArray(value) && wrong !== 1.5) continue;
      leaves++;
      put(wrong);
      expect(() => checkSpecShape(spec)).toThrow(/must|is null|has no/);
      put(value);
    }
  };
  const spec = full();
  for (const [name, member] of Object.entries(spec)) {
    walk(member, (other) => {
      (spec as unknown as Record<string, unknown>)[name] = other;
    });
  }
  expect(leaves).toBeGreaterThan(500);
});
