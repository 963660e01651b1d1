// What config.json can ask for on Linux, part by part, by the command line and real containers of busybox.
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  chownSync,
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
import { binding, check, close, EPOLLIN, SYS, watch } from "../linux/index.ts";
import type { Spec } from "../oci/runtime-spec.ts";
import { createRuntime } from "./index.ts";
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
  if (work) jubako("delete", "--force", id);
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

/** Runs what is in the bundle; it must not keep this test's pipes open. */
function detached(): void {
  const shell = `exec ${process.execPath} ${main} jubako-runtime --root ${work}/state run -d -b ${work} ${id} </dev/null >/dev/null 2>&1`;
  expect(Bun.spawnSync(["sh", "-c", shell]).exitCode).toBe(0);
}

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
  for (let i = 0; i < 8; i++) {
    const child = Bun.spawn(create, none);
    // From the moment that its process is in its cgroup, at one time after another.
    for (let tries = 0; tries < 500 && players().length === 0 && child.exitCode === null; tries++) await Bun.sleep(1);
    await Bun.sleep(i / 2);
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
  // In a user namespace what is made belongs to its root.
  symlinkSync("/run/mapped/deep", `${work}/rootfs/mapped`);
  Bun.spawnSync(["chmod", "755", work]);
  const owner = run(["stat", "-c", "%u:%g", "/run/mapped"], (spec) => {
    const map = [{ containerID: 0, hostID: 300_000, size: 1000 }];
    spec.linux!.namespaces!.push({ type: "user" });
    Object.assign(spec.linux!, { uidMappings: map, gidMappings: map });
    spec.mounts!.push({ destination: "/mapped", type: "tmpfs", source: "tmpfs" });
  });
  expect(owner).toMatchObject({ status: 0, stdout: "0:0\n" });
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
    detached();
    expect(jubako("exec", id, "readlink", "/proc/self/ns/user").stdout).toBe(`${own()}\n`);
  } finally {
    jubako("delete", "--force", id);
    maker.kill(9);
  }
});

real("without a mount namespace of its own a container has its root by chroot, and its mounts go with it", () => {
  const noMounts = (spec: Spec) => {
    spec.linux!.namespaces = spec.linux!.namespaces!.filter(({ type }) => type !== "mount");
    spec.linux!.maskedPaths = [];
    spec.linux!.readonlyPaths = [];
  };
  const shown = run(["sh", "-c", "readlink /proc/self/ns/mnt; ls /"], noMounts);
  expect(shown.stderr).toBe("");
  expect(shown.stdout).toContain(`${readlinkSync("/proc/self/ns/mnt")}\nbin\n`);
  expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(work);
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
  // A further process has the same clocks.
  bundle(["sleep", "100"], (spec) => {
    spec.linux!.namespaces!.push({ type: "time" });
    spec.linux!.timeOffsets = { boottime: { secs: 10_000_000 } };
  });
  try {
    detached();
    expect(Number.parseFloat(jubako("exec", id, "cat", "/proc/uptime").stdout)).toBeGreaterThan(10_000_000);
  } finally {
    jubako("delete", "--force", id);
  }
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

// linux/seccomp.h
const SECCOMP_IOCTL_NOTIF_RECV = 0xc0502100;
const SECCOMP_IOCTL_NOTIF_SEND = 0xc0182101;
const ENOMEDIUM = 123;

/** Takes the state and the listener of one process, then answers every call that it hears of with an error. */
function agent(path: string): { state: () => Record<string, unknown>; close(): void } {
  const address = new Uint8Array(2 + Buffer.byteLength(path) + 1);
  address[0] = 1;
  address.set(Buffer.from(path), 2);
  const socket = check(binding.syscall(SYS.socket, 1, 1 | 0o2000000, 0), "socket");
  check(binding.syscall(SYS.bind, socket, address, address.length), "bind");
  check(binding.syscall(SYS.listen, socket, 4), "listen");
  let state: Record<string, unknown> = {};
  const open: { close(): void }[] = [];
  const waiting = watch(socket, EPOLLIN, () => {
    const peer = check(binding.syscall(SYS.accept4, socket, null, null, 0o2000000), "accept");
    const text = new Uint8Array(8192);
    const control = new Uint8Array(64);
    const iov = new BigUint64Array([BigInt(binding.address(text)), BigInt(text.length)]);
    const header = new BigUint64Array([0n, 0n, BigInt(binding.address(iov)), 1n, BigInt(binding.address(control)), 64n, 0n]);
    const n = check(binding.syscall(SYS.recvmsg, peer, header, 0), "recvmsg");
    void iov;
    close(peer);
    state = JSON.parse(Buffer.from(text.subarray(0, n)).toString());
    const listener = new DataView(control.buffer).getInt32(16, true);
    const listening = watch(listener, EPOLLIN, () => {
      const heard = new Uint8Array(80);
      if (binding.syscall(SYS.ioctl, listener, SECCOMP_IOCTL_NOTIF_RECV, heard) < 0) return listening.close();
      // struct seccomp_notif_resp: id, val, error, flags
      const answer = new DataView(new ArrayBuffer(24));
      answer.setBigUint64(0, new DataView(heard.buffer).getBigUint64(0, true), true);
      answer.setInt32(16, -ENOMEDIUM, true);
      binding.syscall(SYS.ioctl, listener, SECCOMP_IOCTL_NOTIF_SEND, new Uint8Array(answer.buffer));
    });
    open.push({
      close() {
        listening.close();
        close(listener);
      },
    });
  });
  return {
    state: () => state,
    close() {
      waiting.close();
      close(socket);
      for (const each of open) each.close();
    },
  };
}

real("a seccomp agent gets the listener and the process' state, and decides; without one nothing starts", async () => {
  const path = `${work}/agent.sock`;
  const filter = (change: Partial<NonNullable<NonNullable<Spec["linux"]>["seccomp"]>> = {}) => {
    return (spec: Spec) => {
      spec.annotations = { some: "thing" };
      spec.linux!.seccomp = {
        defaultAction: "SCMP_ACT_ALLOW",
        listenerPath: path,
        listenerMetadata: "about it",
        syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_NOTIFY" }],
        ...change,
      };
    };
  };
  const seen = agent(path);
  try {
    bundle(["sh", "-c", "mkdir /dev/shm/x; echo went on"], filter());
    const started = Bun.spawn([process.execPath, main, "jubako-runtime", "--root", `${work}/state`, "run", "-b", work, id], {
      stdin: "ignore",
      stderr: "pipe",
    });
    expect(await started.exited).toBe(0);
    expect(await new Response(started.stdout).text()).toBe("went on\n");
    expect(await new Response(started.stderr).text()).toContain("No medium found");
    const state = seen.state() as { pid: number; state: { pid: number } };
    expect(state).toEqual({
      ociVersion: exampleSpec().ociVersion,
      fds: ["seccompFd"],
      pid: state.pid,
      metadata: "about it",
      state: { ociVersion: exampleSpec().ociVersion, id, status: "creating", pid: state.pid, bundle: work, annotations: { some: "thing" } },
    } as never);
    // The same inside a shim, for a container's further processes, too.
    const spec = JSON.parse(readFileSync(`${bundle(["sleep", "100"], filter())}/config.json`, "utf8")) as Spec;
    const io = { stdin: -1, stdout: -1, stderr: -1, terminal: false, hold: [], holdStdin: -1 };
    const kept = `${work}/kept`;
    const container = await createRuntime().create({ id: `${id}-kept`, bundle: work, spec, rootfs: [], io, state: kept });
    try {
      await container.init.start();
      expect((seen.state() as { pid: number }).pid).toBe(container.init.pid);
      const further = await container.exec({ execId: "e", process: { ...spec.process!, args: ["mkdir", "/dev/shm/y"] }, io });
      await further.start();
      expect((await further.exited).status).toBe(1);
      further.release();
      expect(seen.state()).toMatchObject({ pid: further.pid, state: { pid: container.init.pid, status: "running" } });
    } finally {
      await container.delete(true);
    }
  } finally {
    seen.close();
  }
  expect(run(["true"], filter()).stderr).toContain("failed to connect with seccomp agent");
  expect(run(["true"], filter({ listenerPath: "" })).stderr).toContain("listenerPath must be set");
  expect(run(["true"], filter({ syscalls: [{ names: ["write"], action: "SCMP_ACT_NOTIFY" }] })).stderr).toContain(
    "cannot be used for the write syscall",
  );
  expect(run(["true"], filter({ syscalls: [] }))).toMatchObject({ status: 0, stderr: "" });
  expect(players()).toEqual([]);
});

real("hooks of all six kinds: in their order, in their namespaces, with the state; one that lasts too long ends", () => {
  const log = `${work}/shown/log`;
  mkdirSync(`${work}/shown`, { recursive: true });
  writeFileSync(log, "");
  const hook = (name: string, file: string) => ({
    path: "/bin/sh",
    args: ["sh", "-c", `echo ${name} $(readlink /proc/self/ns/mnt) $E $(cat) >> ${file}`],
    env: ["PATH=/bin:/usr/bin", `E=for-${name}`],
  });
  const names = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] as const;
  const shown = run(["sh", "-c", "echo program $(readlink /proc/self/ns/mnt) >> /shown/log"], (spec) => {
    spec.mounts!.push({ destination: "/shown", type: "bind", source: `${work}/shown`, options: ["bind"] });
    spec.hooks = Object.fromEntries(names.map((name) => [name, [hook(name, name === "startContainer" ? "/shown/log" : log)]]));
  });
  expect(shown).toMatchObject({ status: 0, stderr: "" });
  const lines = readFileSync(log, "utf8")
    .trim()
    .split("\n")
    .map((line) => line.split(" "));
  const order = lines.map(([name]) => name!);
  // The program runs while poststart does.
  expect(order.filter((name) => name !== "program")).toEqual([...names]);
  expect(order.indexOf("program")).toBeGreaterThan(order.indexOf("startContainer"));
  const own = readlinkSync("/proc/self/ns/mnt");
  const inside = lines.find(([name]) => name === "program")![1]!;
  expect(inside).not.toBe(own);
  for (const [name, namespace, env, state] of lines) {
    if (name === "program") continue;
    expect([name, namespace, env]).toEqual([name, name === "createContainer" || name === "startContainer" ? inside : own, `for-${name}`]);
    const {
      status,
      pid,
      id: container,
      bundle: where,
    } = JSON.parse(state!) as { status: string; pid?: number; id: string; bundle: string };
    const wanted = {
      prestart: "creating",
      createRuntime: "creating",
      createContainer: "creating",
      startContainer: "created",
      poststart: "running",
    };
    expect({ name, status, container, where }).toEqual({
      name,
      status: wanted[name as keyof typeof wanted] ?? "stopped",
      container: id,
      where: work,
    });
    expect((pid ?? 0) > 0).toBe(name !== "poststop");
  }
  for (const kind of ["createRuntime", "createContainer", "startContainer"] as const) {
    const began = performance.now();
    const late = run(["true"], (spec) => {
      spec.hooks = { [kind]: [{ path: "/bin/sh", args: ["sh", "-c", "sleep 50"], env: ["PATH=/bin"], timeout: 1 }] };
    });
    expect(late.status).toBe(1);
    expect(late.stderr).toContain(`error running ${kind} hook #0: error running hook: hook ran past specified timeout of 1s`);
    expect(performance.now() - began).toBeLessThan(20_000);
  }
  expect(players()).toEqual([]);
  expect(cgroups()).toBe("");
});

real("$NOTIFY_SOCKET: the container has one of its own, and what its program says reaches systemd with the program's pid", async () => {
  const bound = (path: string) => {
    const address = new Uint8Array(2 + Buffer.byteLength(path) + 1);
    address[0] = 1;
    address.set(Buffer.from(path), 2);
    return address;
  };
  const datagrams = () => check(binding.syscall(SYS.socket, 1, 2 | 0o2000000 | 0o4000, 0), "socket");
  const systemd = datagrams();
  const host = `${work}/systemd.sock`;
  check(binding.syscall(SYS.bind, systemd, bound(host), bound(host).length), "bind");
  const program = datagrams();
  const heard = () => {
    const buffer = new Uint8Array(256);
    const n = binding.syscall(SYS.recvfrom, systemd, buffer, buffer.length, 0, null, null);
    return n > 0 ? Buffer.from(buffer.subarray(0, n)).toString() : "";
  };
  bundle(["sh", "-c", "[ -S $NOTIFY_SOCKET ] && echo $NOTIFY_SOCKET > /dev/shm/seen; exec sleep 100"]);
  const args = (...words: string[]) => [process.execPath, main, "jubako-runtime", "--root", `${work}/state`, ...words];
  const options = { env: { ...process.env, NOTIFY_SOCKET: host }, stdin: "ignore", stdout: "ignore", stderr: "ignore" } as const;
  try {
    expect(await Bun.spawn(args("create", "-b", work, id), options).exited).toBe(0);
    const started = Bun.spawn(args("start", id), options);
    const socket = `${work}/state/${id}/notify/notify.sock`;
    for (let tries = 0; tries < 500 && !(existsSync(socket) && jubako("state", id).stdout.includes("running")); tries++) await Bun.sleep(5);
    expect(started.exitCode).toBeNull();
    const say = (text: string) => {
      const bytes = Buffer.from(text);
      const address = bound(socket);
      check(binding.syscall(SYS.sendto, program, bytes, bytes.length, 0, address, address.length), "sendto");
    };
    say("STATUS=not yet\n");
    say("STATUS=now\nREADY=1\n");
    expect(await started.exited).toBe(0);
    const { pid } = JSON.parse(jubako("state", id).stdout) as { pid: number };
    expect([heard(), heard(), heard()]).toEqual(["READY=1\n", `MAINPID=${pid}\n`, ""]);
    expect(jubako("exec", id, "cat", "/dev/shm/seen").stdout).toBe("/run/notify/notify.sock\n");
  } finally {
    jubako("delete", "--force", id);
    for (const fd of [systemd, program]) close(fd);
  }
});

real("idmapped mounts: by their own mappings, by the container's, recursively, and never by none", () => {
  mkdirSync(`${work}/owned/inner`, { recursive: true });
  Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", `${work}/owned/inner`]);
  Bun.spawnSync(["chmod", "755", work]);
  try {
    for (const file of [`${work}/owned/file`, `${work}/owned/inner/file`]) {
      writeFileSync(file, "");
      chownSync(file, 5, 5);
    }
    const owners = (change: (spec: Spec) => void) => run(["stat", "-c", "%u", "/idmap/file", "/idmap/inner/file"], change);
    const mount = (option: string, mapped: object) => ({
      destination: "/idmap",
      type: "bind",
      source: `${work}/owned`,
      options: ["rbind", ...(option ? [option] : [])],
      ...mapped,
    });
    const map = (hostID: number) => [{ containerID: 0, hostID, size: 1000 }];
    const mappings = (hostID: number) => ({ uidMappings: map(hostID), gidMappings: map(hostID) });
    expect(owners((spec) => spec.mounts!.push(mount("idmap", mappings(7000))))).toMatchObject({ status: 0, stdout: "7005\n5\n" });
    expect(owners((spec) => spec.mounts!.push(mount("ridmap", mappings(7000))))).toMatchObject({ status: 0, stdout: "7005\n7005\n" });
    // The container's own: who is 5 on disk is 5 inside, whoever that is outside.
    const inUser = (option: string) => (spec: Spec) => {
      spec.linux!.namespaces!.push({ type: "user" });
      Object.assign(spec.linux!, mappings(300_000));
      spec.mounts!.push(mount(option, {}));
    };
    expect(owners(inUser("ridmap"))).toMatchObject({ status: 0, stdout: "5\n5\n" });
    expect(owners(inUser("")).stdout).toBe("65534\n65534\n");
    expect(owners((spec) => spec.mounts!.push(mount("idmap", {}))).stderr).toContain("mappings of both user and group ids are needed");
  } finally {
    Bun.spawnSync(["umount", `${work}/owned/inner`]);
  }
});
