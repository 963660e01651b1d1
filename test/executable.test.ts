// The one executable in a directory that is not the checkout: nothing of that directory is taken for its own.
import { afterAll, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bin, lacks, root } from "./support/engine.ts";

const dir = mkdtempSync(join(tmpdir(), "jubako-executable-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test("a .env or bunfig.toml where it is started changes nothing", () => {
  writeFileSync(join(dir, ".env"), "DOCKER_HOST=unix:///from/dotenv\n");
  writeFileSync(join(dir, "bunfig.toml"), 'preload = ["./preload.ts"]\n');
  writeFileSync(join(dir, "preload.ts"), 'console.log("preloaded");\n');
  const env = { PATH: process.env.PATH, HOME: dir };
  const ps = spawnSync(bin("jubako"), ["ps"], { cwd: dir, encoding: "utf8", env });
  expect(ps.stdout + ps.stderr).not.toContain("dotenv");
  const version = spawnSync(bin("jubakod"), ["--version"], { cwd: dir, encoding: "utf8", env });
  expect(version.stdout).toMatch(/^Jubako version /);
});

test("it knows the commit it was built from, and when", () => {
  const version = spawnSync(bin("jubako"), ["-H", `unix://${dir}/none`, "version", "-f", "json"], { encoding: "utf8" });
  const { Client } = JSON.parse(version.stdout) as { Client: { GitCommit: string; BuildTime: string } };
  expect(Client.GitCommit).toMatch(/^([0-9a-f]{7,}|unknown)$/);
  expect(Client.BuildTime).toMatch(/^\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}$/);
  expect(spawnSync(bin("jubakod"), ["--version"], { encoding: "utf8" }).stdout).toBe(`Jubako version 0.1.0, build ${Client.GitCommit}\n`);
});

test.skipIf(lacks("unshare", "setpriv"))("root of a user namespace leaves no files where the machine's root was before", () => {
  const temporary = mkdtempSync(join(dir, "tmp-"));
  for (const each of [dir, temporary]) chmodSync(each, 0o755);
  chmodSync(temporary, 0o1777);
  const env = { PATH: process.env.PATH, TMPDIR: temporary };
  // listing what is not there ends with an error, and loads all that a command loads
  const list = [join(root, "dist/jubako"), "jubako-runtime", "--root", join(dir, "none"), "list"];
  expect(spawnSync(list[0]!, list.slice(1), { env }).status).toBe(1);
  const before = readdirSync(temporary);
  expect(before).toHaveLength(1);
  const user = ["--reuid=54323", "--regid=54323", "--clear-groups", "unshare", "--user", "--map-root-user", ...list];
  expect(spawnSync("setpriv", user, { env, encoding: "utf8" })).toMatchObject({ status: 1, stderr: expect.stringContaining("none") });
  expect(readdirSync(temporary)).toEqual(before);
});
