// For the tests of the runtime: root file systems of busybox, and for those of its command line a bundle with one in a directory of its own, and the
// runtime run on it.
import { afterAll, expect, test } from "bun:test";
import {
  chmodSync,
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

export const busybox = ["/bin/busybox", "/usr/bin/busybox"].find((path) => existsSync(path));
export const real = test.skipIf(process.getuid?.() !== 0 || busybox === undefined);
export const main = `${import.meta.dir}/../main.ts`;
const applets = [
  ...[
    "sh",
    "sleep",
    "true",
    "cat",
    "ls",
    "readlink",
    "grep",
    "id",
    "mkdir",
    "ip",
    "uname",
    "touch",
    "stat",
    "tty",
    "stty",
    "mount",
    "hostname",
  ],
  ...["kill", "head", "dd", "wc", "ps", "echo", "chown"],
];

/** Puts busybox and its names into ROOT/bin, which others than root can read. */
export function busyboxRoot(root: string): void {
  mkdirSync(`${root}/bin`, { recursive: true });
  if (busybox) copyFileSync(busybox, `${root}/bin/busybox`);
  if (busybox) chmodSync(`${root}/bin/busybox`, 0o755);
  for (const applet of applets) symlinkSync("busybox", `${root}/bin/${applet}`);
}

/** A program without terminal in the root file system `root`, which it may write to. */
export function programSpec(root: string, args: string[], change: (spec: Spec) => void = () => {}): Spec {
  const spec = exampleSpec();
  spec.process = { ...spec.process!, args, terminal: false, env: ["PATH=/bin"] };
  spec.root = { path: root };
  change(spec);
  return spec;
}

/** `name` tells the container, its cgroups and the directory from those of other tests. */
export function bundles(name: string) {
  const id = `jubako-${name}-${process.pid}`;
  const work = mkdtempSync(`${tmpdir()}/jubako-runtime-${name}-`);
  chmodSync(work, 0o755);
  busyboxRoot(`${work}/rootfs`);
  afterAll(() => {
    jubako("delete", "--force", id);
    rmSync(work, { recursive: true, force: true });
  });

  function bundle(args: string[], change: (spec: Spec) => void = () => {}): string {
    const spec = programSpec("rootfs", args, (made) => {
      made.linux!.cgroupsPath = `/${id}`;
      change(made);
    });
    writeFileSync(`${work}/config.json`, JSON.stringify(spec));
    return work;
  }

  function jubako(...args: string[]): { status: number; stdout: string; stderr: string } {
    const run = Bun.spawnSync([process.execPath, main, "jubako-runtime", "--root", `${work}/state`, ...args], { stdin: "ignore" });
    return { status: run.exitCode, stdout: run.stdout.toString(), stderr: run.stderr.toString() };
  }

  return {
    id,
    work,
    bundle,
    jubako,
    run: (args: string[], change?: (spec: Spec) => void) => jubako("run", "-b", bundle(args, change), id),

    /** Runs what is in the bundle; it must not keep the test's pipes open. */
    detached() {
      const shell = `exec ${process.execPath} ${main} jubako-runtime --root ${work}/state run -d -b ${work} ${id} </dev/null >/dev/null 2>&1`;
      expect(Bun.spawnSync(["sh", "-c", shell]).exitCode).toBe(0);
    },

    /** Players that wait in the container's cgroups: their program is the player still. */
    players(): number[] {
      return readdirSync("/proc")
        .filter((entry) => /^\d+$/.test(entry))
        .map(Number)
        .filter((pid) => {
          try {
            return readlinkSync(`/proc/${pid}/exe`).startsWith("/memfd:player") && readFileSync(`/proc/${pid}/cgroup`, "utf8").includes(id);
          } catch {
            return false;
          }
        });
    },

    cgroups: () => Bun.spawnSync(["find", "/sys/fs/cgroup", "-maxdepth", "3", "-name", id]).stdout.toString(),
  };
}
