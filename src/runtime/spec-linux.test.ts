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

real("a user namespace, joined by path: new namespaces belong to it", () => {
  const maker = Bun.spawn(["unshare", "-U", "sleep", "100"], { stdin: "ignore" });
  try {
    const own = () => readlinkSync(`/proc/${maker.pid}/ns/user`);
    for (let tries = 0; tries < 200 && own() === readlinkSync("/proc/self/ns/user"); tries++) Bun.sleepSync(5);
    for (const map of ["uid_map", "gid_map"]) writeFileSync(`/proc/${maker.pid}/${map}`, "0 300000 1000\n");
    Bun.spawnSync(["chmod", "755", work]);
    const shown = run(
      ["sh", "-c", "readlink /proc/self/ns/user; id -u; cat /proc/self/uid_map; echo x >/dev/null; touch /dev/shm/file"],
      (spec) => {
        spec.linux!.namespaces!.push({ type: "user", path: `/proc/${maker.pid}/ns/user` });
        spec.process!.capabilities = {};
        spec.process!.user = { uid: 7, gid: 7 };
      },
    );
    expect(shown).toMatchObject({ status: 0, stderr: "" });
    expect(shown.stdout.split("\n").slice(0, 3)).toEqual([own(), "7", "         0     300000       1000"]);
    // A further process joins the same.
    bundle(["sleep", "100"], (spec) => spec.linux!.namespaces!.push({ type: "user", path: `/proc/${maker.pid}/ns/user` }));
    expect(
      Bun.spawnSync([
        "sh",
        "-c",
        `exec ${process.execPath} ${main} jubako-runtime --root ${work}/state run -d -b ${work} ${id} </dev/null >/dev/null 2>&1`,
      ]).exitCode,
    ).toBe(0);
    expect(jubako("exec", id, "readlink", "/proc/self/ns/user").stdout).toBe(`${own()}\n`);
  } finally {
    jubako("delete", "--force", id);
    maker.kill(9);
  }
});

real("without a mount namespace of its own a container has its root by chroot, and its mounts go with it", () => {
  const before = readFileSync("/proc/self/mountinfo", "utf8").split("\n").length;
  const noMounts = (spec: Spec) => {
    spec.linux!.namespaces = spec.linux!.namespaces!.filter(({ type }) => type !== "mount");
    spec.linux!.maskedPaths = [];
    spec.linux!.readonlyPaths = [];
  };
  const shown = run(["sh", "-c", "readlink /proc/self/ns/mnt; ls /"], noMounts);
  expect(shown.stderr).toBe("");
  expect(shown.stdout).toContain(`${readlinkSync("/proc/self/ns/mnt")}\nbin\n`);
  expect(readFileSync("/proc/self/mountinfo", "utf8").split("\n").length).toBe(before);
  const masked = run(["true"], (spec) => {
    spec.linux!.namespaces = spec.linux!.namespaces!.filter(({ type }) => type !== "mount");
  });
  expect(masked.stderr).toContain("without a private MNT namespace");
});

real("devices of the host's network become the container's, with their addresses", () => {
  const ip = (...args: string[]) => Bun.spawnSync(["ip", ...args]).exitCode;
  expect(ip("link", "add", "jbk-nd0", "type", "veth", "peer", "name", "jbk-nd1")).toBe(0);
  try {
    ip("addr", "add", "10.231.7.9/24", "dev", "jbk-nd0");
    ip("link", "set", "jbk-nd0", "mtu", "1400");
    const devices = (netDevices: NonNullable<Spec["linux"]>["netDevices"]) => (spec: Spec) => {
      spec.linux!.netDevices = netDevices!;
    };
    const taken = run(["true"], devices({ "jbk-nd0": { name: "lo" } }));
    expect(taken.stderr).toContain("move network device jbk-nd0 into the container as lo");
    const shown = run(["ip", "addr", "show", "eth7"], devices({ "jbk-nd0": { name: "eth7" } }));
    expect(shown.stderr).toBe("");
    expect(shown.stdout).toContain("10.231.7.9/24");
    expect(shown.stdout).toMatch(/eth7[^:]*: <[A-Z,-]*UP[A-Z,-]*> mtu 1400/);
    expect(run(["true"], devices({ "jbk-none": {} })).stderr).toContain("move network device jbk-none");
    const shared = run(["true"], (spec) => {
      devices({ "jbk-nd0": {} })(spec);
      spec.linux!.namespaces = spec.linux!.namespaces!.filter(({ type }) => type !== "network");
    });
    expect(shared.stderr).toContain("without a private NET namespace");
  } finally {
    ip("link", "del", "jbk-nd1");
  }
});

real("clocks, personality, umask, priorities", () => {
  const shown = run(
    ["sh", "-c", "cat /proc/uptime; uname -m; umask; cat /proc/self/timens_offsets; grep -c . /proc/self/sched"],
    (spec) => {
      spec.linux!.namespaces!.push({ type: "time" });
      spec.linux!.timeOffsets = { boottime: { secs: 10_000_000, nanosecs: 5 }, monotonic: { secs: 77 } };
      spec.linux!.personality = { domain: "LINUX32" };
      spec.process!.user = { uid: 0, gid: 0, umask: 0o27 };
      spec.process!.scheduler = { policy: "SCHED_BATCH", nice: 5 };
      spec.process!.ioPriority = { class: "IOPRIO_CLASS_IDLE" };
    },
  );
  const [uptime, machine, umask, ...rest] = shown.stdout.split("\n");
  expect(Number.parseFloat(uptime!)).toBeGreaterThan(10_000_000);
  expect([machine, umask]).toEqual(["i686", "0027"]);
  expect(rest.join("\n").replace(/ +/g, " ")).toContain("monotonic 77 0\nboottime 10000000 5");
});

real("recursive mount attributes, and the root's propagation", () => {
  mkdirSync(`${work}/tree/inner`, { recursive: true });
  Bun.spawnSync(["mount", "-t", "tmpfs", "tmpfs", `${work}/tree/inner`]);
  try {
    const shown = run(["grep", "-E", " /(a|b)(/inner)? | / / ", "/proc/self/mountinfo"], (spec) => {
      spec.mounts!.push({ destination: "/a", type: "bind", source: `${work}/tree`, options: ["rbind", "rro", "rnosuid"] });
      spec.mounts!.push({
        destination: "/b",
        type: "bind",
        source: `${work}/tree`,
        options: ["rbind", "ro", "rprivate", "noatime", "rnodiratime"],
      });
      spec.linux!.rootfsPropagation = "shared";
    });
    const options = Object.fromEntries(
      shown.stdout
        .trim()
        .split("\n")
        .map((line) => [line.split(" ")[4], line.split(" ").slice(5, 7).join(" ")]),
    );
    expect(options["/a/inner"]).toMatch(/^ro,nosuid/);
    expect(options["/b"]).toMatch(/^ro,noatime,nodiratime/);
    expect(options["/b/inner"]).toMatch(/^rw/);
  } finally {
    Bun.spawnSync(["umount", `${work}/tree/inner`]);
  }
});
