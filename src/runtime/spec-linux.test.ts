// What config.json can ask for on Linux, part by part, by the command line and real containers of busybox: namespaces, devices, settings, hooks.
import { expect } from "bun:test";
import { existsSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { binding, check, close, SYS, unixAddress } from "../linux/index.ts";
import type { Spec } from "../oci/runtime-spec.ts";
import { bundles, main, real } from "./harness.ts";

const { id, work, bundle, jubako, run, detached, players, cgroups } = bundles("spec");

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

real("a user namespace, joined by path: new namespaces belong to it", () => {
  const maker = Bun.spawn(["unshare", "-U", "sleep", "100"], { stdin: "ignore" });
  try {
    const own = () => readlinkSync(`/proc/${maker.pid}/ns/user`);
    for (let tries = 0; tries < 200 && own() === readlinkSync("/proc/self/ns/user"); tries++) Bun.sleepSync(5);
    for (const map of ["uid_map", "gid_map"]) writeFileSync(`/proc/${maker.pid}/${map}`, "0 300000 1000\n");
    Bun.spawnSync(["chmod", "755", work]);
    // Its root may make none in the machine's.
    for (const place of ["proc", "sys", "dev"]) mkdirSync(`${work}/rootfs/${place}`, { recursive: true });
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

real(
  "hooks of all six kinds: in their order, in their namespaces, with the state; one that lasts too long ends",
  () => {
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
  },
  30_000,
);

real("$NOTIFY_SOCKET: the container has one of its own, and what its program says reaches systemd with the program's pid", async () => {
  const datagrams = () => check(binding.syscall(SYS.socket, 1, 2 | 0o2000000 | 0o4000, 0), "socket");
  const systemd = datagrams();
  const host = `${work}/systemd.sock`;
  check(binding.syscall(SYS.bind, systemd, unixAddress(host), unixAddress(host).length), "bind");
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
      const address = unixAddress(socket);
      check(binding.syscall(SYS.sendto, program, bytes, bytes.length, 0, address, address.length), "sendto");
    };
    say("STATUS=not yet\n");
    say("STATUS=now\nREADY=1\n");
    expect(await started.exited).toBe(0);
    const { pid } = JSON.parse(jubako("state", id).stdout) as { pid: number };
    expect([heard(), heard(), heard()]).toEqual(["READY=1\n", `MAINPID=${pid}\n`, ""]);
    expect(jubako("exec", id, "cat", "/dev/shm/seen").stdout).toBe("/run/notify/notify.sock\n");
    jubako("delete", "--force", id);
    // Who stays with the process tells of it meanwhile.
    bundle(["sh", "-c", "until [ -e /dev/shm/over ]; do sleep 0.1; done; exit 6"]);
    const staying = Bun.spawn(args("run", "-b", work, id), options);
    for (let tries = 0; tries < 500 && !(existsSync(socket) && jubako("state", id).stdout.includes("running")); tries++) await Bun.sleep(5);
    say("READY=1\n");
    expect(jubako("exec", id, "sh", "-c", "echo >/dev/shm/over").status).toBe(0);
    expect(await staying.exited).toBe(6);
    expect(heard()).toBe("READY=1\n");
  } finally {
    jubako("delete", "--force", id);
    for (const fd of [systemd, program]) close(fd);
  }
});
