import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { removeMountPoints } from "./stubs.ts";

const dir = mkdtempSync(join(tmpdir(), "jubako-stubs-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test("a directory that the command changed keeps its time when what was mounted upon goes", () => {
  const [lower, upper] = [join(dir, "lower"), join(dir, "upper")];
  for (const root of [lower, upper]) mkdirSync(join(root, "etc"), { recursive: true });
  utimesSync(join(lower, "etc"), 1000, 1000);
  for (const name of ["hosts", "resolv.conf"]) writeFileSync(join(upper, "etc", name), "");
  writeFileSync(join(upper, "etc/group"), "app:x:1:");
  utimesSync(join(upper, "etc"), 5000, 5000);
  const mounts = [{ type: "overlay", source: "overlay", options: [`lowerdir=${lower}`, `upperdir=${upper}`, `workdir=${dir}/work`] }];
  removeMountPoints(mounts, ["/etc/hosts", "/etc/resolv.conf"]);
  expect(existsSync(join(upper, "etc/hosts")) || existsSync(join(upper, "etc/resolv.conf"))).toBe(false);
  expect(statSync(join(upper, "etc")).mtimeMs).toBe(5_000_000);
});
