// What runc does since 1.2, as its own newer tests ask for it.
import { expect, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import type { Spec } from "../oci/runtime-spec.ts";
import { bundles, main, real } from "./harness.ts";

const { id, work, bundle, jubako, run, detached } = bundles("newer");
for (const directory of ["source", "rootfs/covered"]) mkdirSync(`${work}/${directory}`);

real("each variable is there once, with its last value; an empty HOME is the user's own", () => {
  const env = (list: string[]) =>
    run(["cat", "/proc/self/environ"], ({ process }) => {
      process!.env = ["PATH=/bin", ...list];
    }).stdout;
  expect(env(["A=1", "HOME=/other", "A=2"])).toBe("PATH=/bin\0HOME=/other\0A=2\0");
  expect(env(["HOME=/other", "HOME="])).toBe("PATH=/bin\0HOME=/\0");
  const bad = run(["true"], ({ process }) => {
    process!.env = ["PATH=/bin", "NAME"];
  });
  expect(bad.stderr).toContain("invalid environment variable: missing '='");
});

real("a startContainer hook that names no environment has the program's", () => {
  const hooked = run(["true"], (spec) => {
    spec.process!.env = ["PATH=/bin", "ONE=two"];
    spec.hooks = { startContainer: [{ path: "/bin/sh", args: ["sh", "-c", 'test "$ONE$HOME" = two/'] }] };
  });
  expect(hooked).toMatchObject({ status: 0, stderr: "" });
});

real("a container whose poststart hook fails is stopped and removed", () => {
  const failed = run(["sleep", "100"], (spec) => {
    spec.hooks = { poststart: [{ path: "/bin/true" }, { path: "/bin/false" }] };
  });
  expect(failed.status).toBe(1);
  expect(failed.stderr).toContain("error running poststart hook #1:");
  expect(jubako("list", "-q").stdout).toBe("");
});

real("a container and what is run in it later may run on all cpus, whoever asked for them on one", () => {
  bundle(["sleep", "100"]);
  const bound = (...args: string[]) =>
    Bun.spawnSync(["taskset", "-c", "0", process.execPath, main, "jubako-runtime", "--root", `${work}/state`, ...args], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
  const all = /^Cpus_allowed_list:\t(.*)$/m.exec(Bun.spawnSync(["cat", "/proc/self/status"]).stdout.toString())![1];
  bundle(["grep", "Cpus_allowed_list", "/proc/self/status"]);
  expect(bound("run", "-b", work, id).stdout.toString()).toBe(`Cpus_allowed_list:\t${all}\n`);
  bundle(["sleep", "100"]);
  detached();
  expect(bound("exec", id, "grep", "Cpus_allowed_list", "/proc/self/status").stdout.toString()).toBe(`Cpus_allowed_list:\t${all}\n`);
  // Two in one cgroup: runc 1.1 warns, 1.2 refuses.
  bundle(["true"]);
  const second = jubako("run", "-b", work, `${id}-second`);
  expect(second.status).toBe(0);
  expect(second.stderr).toMatch(/container's cgroup is not empty: \d+ process\(es\) found/);
  expect(jubako("delete", "--force", id).status).toBe(0);
});

real("a mount's destination without a slash is below the root", () => {
  const { stdout } = run(["grep", " /tmp/relative ", "/proc/self/mounts"], (spec) => {
    spec.mounts!.push({ destination: "tmp/relative", type: "tmpfs", source: "tmpfs" });
  });
  expect(stdout).toStartWith("tmpfs /tmp/relative tmpfs ");
});

real("capabilities that cannot be ambient are told of; a limit of no processes is one process", () => {
  const told = run(["cat", "/proc/self/status"], (spec) => {
    spec.process!.capabilities!.inheritable = ["CAP_KILL"];
    spec.process!.capabilities!.ambient = ["CAP_KILL", "CAP_CHOWN"];
    spec.linux!.resources!.pids = { limit: 0 };
  });
  expect(told.stderr).toContain("can't raise ambient capability CAP_CHOWN: ");
  expect(told.stdout).toContain("CapAmb:\t0000000000000020");
});

real("a tmpfs has the mode of the directory that it covers, unless one is named", () => {
  chmodSync(`${work}/rootfs/covered`, 0o3710);
  const mode = (options: string[]) =>
    run(["stat", "-c", "%a", "/covered"], (spec) => {
      spec.mounts!.push({ destination: "/covered", type: "tmpfs", source: "tmpfs", options });
    }).stdout;
  expect(mode([])).toBe("3710\n");
  expect(mode(["mode=500"])).toBe("500\n");
});

real("a bind has the attributes that are named, and its source's where none is; a user namespace takes none away", () => {
  const source = `${work}/source`;
  const options = (list: string[], change: (spec: Spec) => void = () => {}) =>
    run(["grep", " /covered ", "/proc/self/mounts"], (spec) => {
      spec.mounts!.push({ destination: "/covered", type: "bind", source, options: ["bind", ...list] });
      change(spec);
    });
  const mount = (...args: string[]) => expect(Bun.spawnSync(["mount", ...args]).exitCode).toBe(0);
  mount("-t", "tmpfs", "-o", "mode=755", "jubako-newer", source);
  try {
    mount("-o", "remount,bind,nosuid,nodev,noatime", source);
    const of = (list: string[]) => options(list).stdout.split(" ")[3];
    expect(of(["rprivate"])).toStartWith("rw,nosuid,nodev,noatime");
    expect(of(["ro"])).toStartWith("ro,noatime");
    expect(of(["suid", "atime"])).toStartWith("rw,noatime");
    expect(of(["relatime"])).toStartWith("rw,relatime");
    const refused = options(["suid"], (spec) => {
      spec.linux!.namespaces!.push({ type: "user" });
      spec.linux!.uidMappings = [{ containerID: 0, hostID: 100_000, size: 65_536 }];
      spec.linux!.gidMappings = [{ containerID: 0, hostID: 100_000, size: 65_536 }];
    });
    expect(refused.stderr).toContain("error during container init: error mounting");
    expect(refused.stderr).toContain("operation not permitted");
  } finally {
    Bun.spawnSync(["umount", source]);
  }
});

real("without a pid namespace, KILL ends every process of the container; before its start any signal that would end it does", () => {
  bundle(["sleep", "100"], (spec) => {
    spec.linux!.namespaces = spec.linux!.namespaces!.filter(({ type }) => type !== "pid");
  });
  detached();
  const second = Bun.spawn([process.execPath, main, "jubako-runtime", "--root", `${work}/state`, "exec", "-d", id, "sleep", "1000"], {
    stdio: ["ignore", "ignore", "ignore"],
  });
  for (let i = 0; i < 200 && (JSON.parse(jubako("ps", "-f", "json", id).stdout) as number[]).length < 2; i++) Bun.sleepSync(10);
  expect(jubako("kill", id, "KILL").status).toBe(0);
  for (let i = 0; i < 200 && jubako("ps", "-f", "json", id).stdout !== "[]\n"; i++) Bun.sleepSync(10);
  expect(jubako("ps", "-f", "json", id).stdout).toBe("[]\n");
  second.kill();
  expect(jubako("delete", id).status).toBe(0);
  bundle(["sleep", "100"]);
  const create = `exec ${process.execPath} ${main} jubako-runtime --root ${work}/state create -b ${work} ${id} </dev/null >/dev/null 2>&1`;
  expect(Bun.spawnSync(["sh", "-c", create]).exitCode).toBe(0);
  expect(jubako("kill", id, "TERM").status).toBe(0);
  const status = () => (JSON.parse(jubako("state", id).stdout) as { status: string }).status;
  for (let i = 0; i < 200 && status() !== "stopped"; i++) Bun.sleepSync(10);
  expect(status()).toBe("stopped");
  expect(jubako("delete", id).status).toBe(0);
});

real("what cannot be is refused in runc's words", () => {
  const policy = (memoryPolicy: NonNullable<Spec["linux"]>["memoryPolicy"]) =>
    run(["true"], (spec) => {
      spec.linux!.memoryPolicy = memoryPolicy!;
    }).stderr;
  expect(policy({ nodes: "0" })).toContain("invalid memory policy mode");
  expect(policy({ mode: "MPOL_DEFAULT", nodes: "0-7" })).toContain("mode requires 0 nodes but got 8");
  expect(policy({ mode: "MPOL_BIND" })).toContain("mode requires at least one node");
  const deadline = run(["true"], (spec) => {
    spec.process!.scheduler = { policy: "SCHED_DEADLINE", runtime: 42_000, deadline: 1_000_000, period: 1_000_000 };
    spec.linux!.resources!.cpu = { cpus: "0" };
  });
  expect(deadline.stderr).toContain("process scheduler can't be used together with AllowedCPUs");
  expect(Bun.spawnSync([process.execPath, main, "jubako-runtime", "--root", `${work}/none`, "list"]).exitCode).toBe(1);
});

const withPython = Bun.which("python3") ? real : test.skip;
if (!Bun.which("python3")) console.log("skip: python3 not installed");

withPython("who got the pidfd of a created container ends it by SIGTERM, or starts it", async () => {
  const send = `
import array, signal, socket, sys
server = socket.socket(socket.AF_UNIX); server.bind(sys.argv[1]); server.listen()
for number in (signal.SIGWINCH, signal.SIGTERM):
    control = server.accept()[0].recvmsg(64, socket.CMSG_SPACE(4))[1]
    sys.stdin.readline()
    signal.pidfd_send_signal(array.array("i", control[0][2])[0], number)
    print(flush=True)
`;
  const socket = `${work}/ending.sock`;
  const sender = Bun.spawn(["python3", "-c", send, socket], { stdin: "pipe", stdout: "pipe" });
  const sent = sender.stdout.getReader();
  const signal = async () => {
    sender.stdin.write("\n");
    sender.stdin.flush();
    await sent.read();
  };
  for (let i = 0; i < 200 && !existsSync(socket); i++) Bun.sleepSync(10);
  const status = () => (JSON.parse(jubako("state", id).stdout) as { status: string }).status;
  const create = () => {
    const shell = `exec ${process.execPath} ${main} jubako-runtime --root ${work}/state create --pidfd-socket ${socket} -b ${work} ${id} </dev/null >${work}/printed 2>&1`;
    expect(Bun.spawnSync(["sh", "-c", shell]).exitCode).toBe(0);
    expect(status()).toBe("created");
  };
  // What ends no program ends nothing here; the program gets the signal mask that it would have had.
  bundle(["sh", "-c", "grep SigBlk /proc/self/status"]);
  create();
  await signal();
  expect(status()).toBe("created");
  expect(jubako("start", id).status).toBe(0);
  for (let i = 0; i < 200 && status() !== "stopped"; i++) Bun.sleepSync(10);
  expect(readFileSync(`${work}/printed`, "utf8")).toBe("SigBlk:\t0000000000000000\n");
  expect(jubako("delete", id).status).toBe(0);
  create();
  await signal();
  for (let i = 0; i < 200 && status() !== "stopped"; i++) Bun.sleepSync(10);
  expect(status()).toBe("stopped");
  expect(jubako("delete", id).status).toBe(0);
  await sender.exited;
});

withPython("--pidfd-socket gets a pidfd of the container's process, and of one that is run in it", () => {
  const listen = `
import array, os, socket, sys
server = socket.socket(socket.AF_UNIX); server.bind(sys.argv[1]); server.listen()
for _ in range(2):
    peer = server.accept()[0]
    data, control, _, _ = peer.recvmsg(64, socket.CMSG_SPACE(4))
    fd = array.array("i", control[0][2])[0]
    print(data.decode(), [l for l in open(f"/proc/self/fdinfo/{fd}") if l.startswith("Pid:")][0].split()[1], flush=True)
`;
  const socket = `${work}/pidfd.sock`;
  const heard = Bun.spawn(["python3", "-c", listen, socket], { stdout: Bun.file(`${work}/heard`) });
  for (let i = 0; i < 200 && !existsSync(socket); i++) Bun.sleepSync(10);
  bundle(["sleep", "100"]);
  const shell = `exec ${process.execPath} ${main} jubako-runtime --root ${work}/state run -d --pidfd-socket ${socket} -b ${work} ${id} </dev/null >/dev/null 2>&1`;
  expect(Bun.spawnSync(["sh", "-c", shell]).exitCode).toBe(0);
  expect(jubako("exec", "--pidfd-socket", socket, "--pid-file", `${work}/exec.pid`, id, "true").status).toBe(0);
  const { pid } = JSON.parse(jubako("state", id).stdout) as { pid: number };
  expect(readFileSync(`${work}/heard`, "utf8")).toBe(`pidfd ${pid}\npidfd ${readFileSync(`${work}/exec.pid`, "utf8")}\n`);
  heard.kill();
  expect(jubako("delete", "--force", id).status).toBe(0);
});
