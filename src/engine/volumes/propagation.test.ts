import { expect, test } from "bun:test";
import { mountOf } from "./propagation.ts";

const MOUNTINFO = `21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 21 0:25 / /a\\040b rw shared:5 - tmpfs tmpfs rw
31 21 0:26 / /a\\040b rw master:7 propagate_from:2 - tmpfs tmpfs rw
32 21 0:27 / /ab rw shared:9 - tmpfs tmpfs rw
garbage
`;

test("a path lies in the deepest and latest mount above it", () => {
  expect(mountOf(MOUNTINFO, "/etc")).toEqual({ place: "/", fields: [] });
  expect(mountOf(MOUNTINFO, "/a b/c")).toEqual({ place: "/a b", fields: ["master:7", "propagate_from:2"] });
  expect(mountOf(MOUNTINFO, "/ab")).toEqual({ place: "/ab", fields: ["shared:9"] });
  expect(mountOf(MOUNTINFO, "/abc")).toEqual({ place: "/", fields: [] });
  expect(mountOf("", "/abc")).toBeUndefined();
});
