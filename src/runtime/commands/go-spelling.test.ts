import { expect, test } from "bun:test";
import { resourcesOf } from "./go-spelling.ts";

test("limits are known by their names in any case; one that is there twice adds to the first", () => {
  const asSpecified = { cpu: { shares: 100, cpus: "1" }, unified: { "Memory.Max": "1" } };
  expect(resourcesOf(asSpecified)).toBe(asSpecified as object);
  const resources: object = resourcesOf({
    cpu: { shares: 100, cpus: "1" },
    CPU: { Cpus: "0", Mems: "0" },
    BlockIO: { Weight: 10 },
    hugepageLimits: [{ pagesize: "2MB", limit: 0 }],
    Unified: { "Memory.Max": "1" },
  });
  expect(resources).toEqual({
    cpu: { shares: 100, cpus: "0", mems: "0" },
    blockIO: { weight: 10 },
    hugepageLimits: [{ pagesize: "2MB", pageSize: "2MB", limit: 0 }],
    unified: { "Memory.Max": "1" },
  });
});
