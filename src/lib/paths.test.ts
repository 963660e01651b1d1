import { expect, test } from "bun:test";
import * as node from "node:path";
import * as ours from "./paths.ts";

test("paths as node:path has them", () => {
  for (const path of ["/", "/a", "/a/", "/a/b", "/a//b//", "a", "a/b", "", ".", "..", "../x", "/../x/./y/..", "a/../..", "//a", "//"]) {
    expect(ours.resolve(path)).toBe(node.resolve(path));
    expect(ours.basename(path)).toBe(node.basename(path));
    // node:path leaves doubled slashes where they are.
    if (!path.includes("//")) expect([path, ours.dirname(path)]).toEqual([path, node.dirname(path)]);
  }
});
