// What config.json can ask for on Linux, part by part, by the command line and real containers of busybox.
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import type { Spec } from "../oci/runtime-spec.ts";
import { exampleSpec } from "./spec.ts";

const busybox = ["/bin/busybox", "/usr/bin/busybox"].find((path) => existsSync(path));
const real = test.skipIf(process.getuid?.() !== 0 || busybox === undefined);
const main = `${import.meta.dir}/../main.ts`;
const id = `jubako-spec-${process.pid}`;
const cgroupsPath = `/${id}`;
let work = "";

beforeAll(() => {
  if (!busybox) return;
  work = mkdtempSync(`${tmpdir()}/jubako-runtime-spec-`);
  mkdirSync(`${work}/rootfs/bin`, { recursive: true });
  copyFileSync(busybox, `${work}/rootfs/bin/busybox`);
  Bun.spawnSync(["chmod", "755", `${work}/rootfs/bin/busybox`]);
  for (const name of ["sh", "sleep", "true", "cat", "ls", "readlink", "grep", "id", "mkdir", "ip", "uname", "touch", "stat"])
    symlinkSync("busybox", `${work}/rootfs/bin/${name}`);
});
afterAll(() => {
  if (work) rmSync(work, { recursive: true, force: true });
});

function bundle(args: string[], change: (spec: Spec) => void = () => {}): string {
  const spec = exampleSpec();
  spec.process = { ...spec.process!, args, terminal: false, env: ["PATH=/bin"] };
  spec.root = { path: "rootfs" };
  spec.linux!.cgroupsPath = cgroupsPath;
  change(spec);
  writeFileSync(`${work}/config.json`, JSON.stringify(spec));
  return work;
}

function jubako(...args: string[]): { status: number; stdout: string; stderr: string } {
  const run = Bun.spawnSync([process.execPath, main, "jubako-runtime", "--root", `${work}/state`, ...args], { stdin: "ignore" });
  return { status: run.exitCode, stdout: run.stdout.toString(), stderr: run.stderr.toString() };
}

const run = (args: string[], change?: (spec: Spec) => void) => jubako("run", "-b", bundle(args, change), id);

/** Players that wait, of whichever container: their program is the player still. */
function players(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return readlinkSync(`/proc/${pid}/exe`).startsWith("/memfd:player") && readFileSync(`/proc/${pid}/cgroup`, "utf8").includes(id);
      } catch {
        return false;
      }
    });
}

const cgroups = () => Bun.spawnSync(["find", "/sys/fs/cgroup", "-maxdepth", "3", "-name", id]).stdout.toString();

real("a creation that is killed leaves no process, and delete --force takes the rest away", async () => {
  bundle(["sleep", "100"]);
  const create = [process.execPath, main, "jubako-runtime", "--root", `${work}/state`, "create", "-b", work, id];
  const none = { stdin: "ignore", stdout: "ignore", stderr: "ignore" } as const;
  for (let i = 0; i < 12; i++) {
    const child = Bun.spawn(create, none);
    // From the moment that its process is in its cgroup, at one time after another.
    for (let tries = 0; tries < 500 && players().length === 0 && child.exitCode === null; tries++) await Bun.sleep(1);
    await Bun.sleep(i / 3);
    child.kill("SIGKILL");
    await child.exited;
    const written = existsSync(`${work}/state/${id}/state.json`);
    for (let tries = 0; tries < 200 && !written && players().length > 0; tries++) await Bun.sleep(5);
    expect(written || players().length === 0).toBe(true);
    expect(jubako("delete", "--force", id).status).toBe(0);
    expect({ left: cgroups(), players: players() }).toEqual({ left: "", players: [] });
  }
  // The same while it waits for hooks.
  bundle(["sleep", "100"], (spec) => {
    spec.hooks = { createRuntime: [{ path: "/bin/sh", args: ["sh", "-c", "kill -9 $PPID; sleep 0.1"] }] };
  });
  expect(await Bun.spawn(create, none).exited).not.toBe(0);
  for (let tries = 0; tries < 200 && players().length > 0; tries++) await Bun.sleep(5);
  expect(players()).toEqual([]);
  expect(jubako("delete", "--force", id).status).toBe(0);
  expect(cgroups()).toBe("");
});

real("mounts go where a dangling link of the image leads, inside", () => {
  symlinkSync("/run/made/resolv.conf", `${work}/rootfs/resolv`);
  symlinkSync("../../../../../../made/../made/too", `${work}/rootfs/bin/dangling`);
  symlinkSync("/loop", `${work}/rootfs/loop`);
  writeFileSync(`${work}/file`, "nameserver ::1\n");
  const show = run(["sh", "-c", "cat /run/made/resolv.conf; grep -c ' /made/too/deep ' /proc/self/mountinfo"], (spec) => {
    spec.mounts!.push({ destination: "/resolv", type: "bind", source: `${work}/file`, options: ["bind", "ro"] });
    spec.mounts!.push({ destination: "/bin/dangling/deep", type: "tmpfs", source: "tmpfs" });
  });
  expect(show).toMatchObject({ status: 0, stdout: "nameserver ::1\n1\n", stderr: "" });
  const loop = run(["true"], (spec) => spec.mounts!.push({ destination: "/loop", type: "tmpfs", source: "tmpfs" }));
  expect(loop.stderr).toContain("ELOOP");
});
