// Containers of a user without rights: one that exists only here, with sub-ids of his own in files that are bound over the machine's in a mount
// namespace of the test's.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  accessSync,
  chmodSync,
  chownSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import type { Spec } from "../oci/runtime-spec.ts";
import { seccompAgent } from "./agent-harness.ts";
import { busybox, busyboxRoot, main } from "./harness.ts";

setDefaultTimeout(30_000);
const UID = 54321;
const SUB = 400_000;
const here = `jubako-rootless-${process.pid}`;

function lacks(): boolean {
  const missing = ["setpriv", "unshare", "script"].filter((program) => !Bun.which(program));
  if (!busybox) missing.push("busybox");
  let reason = missing.length ? `${missing.join(", ")} not installed` : process.getuid?.() !== 0 ? "not root" : undefined;
  if (!reason) {
    // Others must be able to read what is run.
    const read = Bun.spawnSync([
      "setpriv",
      `--reuid=${UID}`,
      `--regid=${UID}`,
      "--clear-groups",
      "test",
      "-r",
      main,
      "-a",
      "-x",
      process.execPath,
    ]);
    if (read.exitCode !== 0) reason = "this checkout cannot be read by other users";
  }
  if (reason) console.log(`skip: ${reason}`);
  return reason !== undefined;
}

const dist = `${import.meta.dir}/../../dist`;
const hosts = ["Bun", ...(existsSync(`${dist}/../build/lean`) ? ["the lean host"] : [])];

describe.skipIf(lacks()).each(hosts)("a user without rights, by %s", (host) => {
  let work = "";
  const bun = [process.execPath, main, "jubako-runtime"];
  let program = bun;

  beforeAll(() => {
    work = mkdtempSync(`${tmpdir()}/${here}-`);
    chmodSync(work, 0o755);
    for (const name of ["run", "bundle", "bundle/rootfs", "bundle/rootfs/bin"]) {
      mkdirSync(`${work}/${name}`);
      chownSync(`${work}/${name}`, UID, UID);
    }
    busyboxRoot(`${work}/bundle/rootfs`);
    if (host !== "Bun") {
      mkdirSync(`${work}/alone/bin`, { recursive: true });
      program = [`${work}/alone/bin/jubako-runtime`];
      copyFileSync(`${dist}/bin/jubako-runtime`, program[0]!);
    }
    const add = (file: string, line: string) =>
      writeFileSync(`${work}/${file}`, `${existsSync(`/etc/${file}`) ? readFileSync(`/etc/${file}`, "utf8") : ""}${line}\n`);
    add("passwd", `${here}:x:${UID}:${UID}::/:/bin/sh`);
    add("group", `${here}:x:${UID}:`);
    add("subuid", `${here}:${SUB}:1000`);
    add("subgid", `${here}:${SUB}:1000`);
  });
  afterAll(() => {
    for (const id of ["life", "many"]) runtime(["delete", "--force", id]);
    rmSync(work, { recursive: true, force: true });
  });

  /** A shell command of the user's. `before` is root's, in the same process. */
  function userCommand(command: string, before = ":"): string[] {
    const bind = ["passwd", "group", "subuid", "subgid"]
      .map((file) => `touch /etc/${file}; mount --bind ${work}/${file} /etc/${file}`)
      .join("; ");
    const user = `exec setpriv --reuid=${UID} --regid=${UID} --clear-groups env -i PATH="$PATH" HOME=/ XDG_RUNTIME_DIR=${work}/run sh -c "$1"`;
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", `set -e; ${bind}; ${before}; cd /; ${user}`, "sh", command];
  }
  function asUser(command: string, before?: string): { status: number; stdout: string; stderr: string } {
    const run = Bun.spawnSync(userCommand(command, before), { stdin: "ignore" });
    return { status: run.exitCode, stdout: run.stdout.toString(), stderr: run.stderr.toString() };
  }
  /** The same, while this process goes on. */
  async function meanwhile(args: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
    const run = Bun.spawn(userCommand(words(args)), { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
    const [stdout, stderr] = await Promise.all([new Response(run.stdout).text(), new Response(run.stderr).text()]);
    return { status: await run.exited, stdout, stderr };
  }
  const words = (args: string[], by = program) => [...by, ...args].map((word) => `'${word}'`).join(" ");
  const runtime = (args: string[], before?: string) => asUser(words(args), before);

  function bundle(args: string[], change: (spec: Spec) => void = () => {}): string[] {
    rmSync(`${work}/bundle/config.json`, { force: true });
    const made = asUser(words(["spec", "--rootless", "--bundle", `${work}/bundle`], bun));
    if (made.status !== 0) throw new Error(made.stderr);
    const spec = JSON.parse(readFileSync(`${work}/bundle/config.json`, "utf8")) as Spec;
    spec.process!.args = args;
    spec.process!.terminal = false;
    spec.root!.readonly = false;
    change(spec);
    writeFileSync(`${work}/bundle/config.json`, JSON.stringify(spec));
    return ["--bundle", `${work}/bundle`];
  }
  function withSubIds(spec: Spec): void {
    const maps = [
      { containerID: 0, hostID: UID, size: 1 },
      { containerID: 1, hostID: SUB, size: 1000 },
    ];
    Object.assign(spec.linux!, { uidMappings: maps, gidMappings: maps });
    for (const set of ["bounding", "effective", "permitted"] as const) spec.process!.capabilities![set]!.push("CAP_CHOWN");
  }

  test("spec --rootless runs: root inside, himself outside, no groups, the host's nodes", () => {
    const script =
      "id -u; cat /proc/self/uid_map; cat /proc/self/setgroups; echo x >/dev/null; ls /sys/kernel >/dev/null; touch /made; echo $HOME; exit 3";
    const run = runtime([
      "run",
      ...bundle(["sh", "-c", script], (spec) => {
        spec.process!.env = ["PATH=/bin"];
      }),
      "one",
    ]);
    expect(run.stderr).toBe("");
    const [uid, map, groups, home] = run.stdout.trim().split("\n");
    expect([uid, map!.trim().split(/\s+/).join(" "), groups, home]).toEqual(["0", `0 ${UID} 1`, "deny", "/"]);
    expect(run.status).toBe(3);
    expect(Bun.file(`${work}/bundle/made`).size).toBe(0);
    expect(runtime(["list", "-q"]).stdout).toBe("");
  });

  test("create, start, exec with and without terminal, ps, kill, delete", () => {
    const hook = `${work}/hook`;
    writeFileSync(hook, `#!/bin/sh\ncat >${work}/run/hook.json\n`);
    chmodSync(hook, 0o755);
    const hooked = bundle(["sh", "-c", "exec sleep 1000 >/dev/null 2>&1"], (spec) => {
      spec.hooks = { createContainer: [{ path: hook }] };
    });
    // What waits at its gate has its maker's stdout.
    expect(asUser(`${words(["create", ...hooked, "life"])} >${work}/run/out 2>&1`).status).toBe(0);
    expect(JSON.parse(readFileSync(`${work}/run/hook.json`, "utf8"))).toMatchObject({ id: "life", status: "creating" });
    expect(JSON.parse(runtime(["state", "life"]).stdout).status).toBe("created");
    expect(runtime(["start", "life"])).toMatchObject({ status: 0, stderr: "" });
    expect(runtime(["list"]).stdout).toMatch(new RegExp(`life +\\d+ +running .* ${here}\n`));
    expect(runtime(["exec", "life", "sh", "-c", "id -u; exit 4"])).toMatchObject({ status: 4, stdout: "0\n" });
    expect(asUser(`script -qec "${words(["exec", "-t", "life", "tty"])}" /dev/null`).stdout).toContain("/dev/pts/0");
    expect(JSON.parse(runtime(["ps", "--format", "json", "life"]).stdout)).toEqual([JSON.parse(runtime(["state", "life"]).stdout).pid]);
    expect(runtime(["pause", "life"]).stderr).toContain("freezer");
    expect(runtime(["kill", "--all", "life", "KILL"]).status).toBe(0);
    for (let i = 0; i < 100 && JSON.parse(runtime(["state", "life"]).stdout).status !== "stopped"; i++) Bun.sleepSync(20);
    expect(runtime(["delete", "life"])).toMatchObject({ status: 0, stderr: "" });
  });

  test.skipIf(!Bun.which("newuidmap"))("sub-ids by newuidmap: other users inside own files, and run programs", () => {
    const script = "touch /tmp1; chown 7:8 /tmp1; stat -c %u:%g /tmp1; id -u";
    const first = runtime(["run", ...bundle(["sh", "-c", script], withSubIds), "many"]);
    expect(first).toMatchObject({ stderr: "", stdout: "7:8\n0\n" });
    expect(Bun.spawnSync(["stat", "-c", "%u:%g", `${work}/bundle/rootfs/tmp1`]).stdout.toString()).toBe(`${SUB + 6}:${SUB + 7}\n`);
    const asSeven = bundle(["sh", "-c", "exec sleep 1000 >/dev/null 2>&1"], (spec) => {
      withSubIds(spec);
      spec.process!.user = { uid: 7, gid: 8 };
    });
    expect(runtime(["run", "--detach", ...asSeven, "many"])).toMatchObject({ status: 0, stderr: "" });
    expect(runtime(["exec", "--user", "9:10", "many", "id", "-u"]).stdout).toBe("9\n");
    expect(runtime(["exec", "many", "grep", "^Uid", "/proc/1/status"]).stdout).toBe("Uid:\t7\t7\t7\t7\n");
    expect(runtime(["delete", "--force", "many"])).toMatchObject({ status: 0, stderr: "" });
  });

  test("another container's namespaces are joined; a tmpfs begins with what lies beneath, of owners that are known inside", () => {
    const target = bundle(["sh", "-c", "exec sleep 1000 >/dev/null 2>&1"], (spec) => spec.linux!.namespaces!.push({ type: "time" }));
    expect(runtime(["run", "--detach", ...target, "life"])).toMatchObject({ status: 0, stderr: "" });
    try {
      const { pid } = JSON.parse(runtime(["state", "life"]).stdout) as { pid: number };
      const shown = ["user", "pid", "time", "ipc", "uts"];
      for (const name of ["own", "roots"]) mkdirSync(`${work}/bundle/rootfs/seed/${name}`, { recursive: true });
      chownSync(`${work}/bundle/rootfs/seed/own`, UID, UID);
      const stat = "stat -c %u /seed/own /seed/roots";
      const joining = bundle(["sh", "-c", `for type in ${shown.join(" ")}; do readlink /proc/self/ns/$type; done`], ({ linux }) => {
        linux!.namespaces = linux!.namespaces!.map(({ type }) => (type === "mount" ? { type } : { type, path: `/proc/${pid}/ns/${type}` }));
        linux!.namespaces.push({ type: "time", path: `/proc/${pid}/ns/time` });
        for (const maps of ["uidMappings", "gidMappings"] as const) delete linux![maps];
      });
      const theirs = asUser(`readlink ${shown.map((type) => `/proc/${pid}/ns/${type}`).join(" ")}`).stdout;
      expect(theirs).toContain("pid:[");
      const joined = runtime(["run", ...joining, "many"]);
      expect(joined).toMatchObject({ status: 0, stdout: theirs });
      expect(joined.stderr).toContain("Such configuration is strongly discouraged");
      const seeded = bundle(["sh", "-c", stat], (spec) => {
        spec.mounts!.push({ destination: "/seed", type: "tmpfs", source: "tmpfs", options: ["tmpcopyup"] });
      });
      expect(runtime(["run", ...seeded, "many"])).toMatchObject({ status: 0, stderr: "", stdout: "0\n0\n" });
    } finally {
      runtime(["delete", "--force", "life"]);
    }
  });

  const users: [who: string, change: (spec: Spec) => void][] = [
    ["himself alone", () => {}],
    ["other users inside", withSubIds],
  ];
  if (!Bun.which("newuidmap")) console.log(`skip: newuidmap not installed: no seccomp agent for ${users.pop()![0]}`);
  test.each(users)("a seccomp agent decides for %s, in run and exec", async (_, change) => {
    const path = `${work}/run/agent.sock`;
    rmSync(path, { force: true });
    const agent = seccompAgent(path);
    try {
      // A filter that nobody has compiled before is Bun's to compile.
      if (host !== "Bun") symlinkSync(`${dist}/jubako`, `${work}/alone/jubako`);
      chmodSync(path, 0o777);
      const user = change === withSubIds ? { uid: 7, gid: 8 } : { uid: 0, gid: 0 };
      const config = bundle(["sh", "-c", "mkdir /dev/shm/x; exec sleep 1000 >/dev/null 2>&1"], (spec) => {
        change(spec);
        spec.process!.user = user;
        spec.linux!.seccomp = {
          defaultAction: "SCMP_ACT_ALLOW",
          listenerPath: path,
          listenerMetadata: "rootless",
          syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_NOTIFY" }],
        };
      });
      expect(await meanwhile(["run", "--detach", ...config, "life"])).toMatchObject({ status: 0 });
      const { pid } = JSON.parse(runtime(["state", "life"]).stdout) as { pid: number };
      expect(agent.state()).toMatchObject({ metadata: "rootless", pid, state: { id: "life", pid } });
      const further = await meanwhile(["exec", "life", "mkdir", "/dev/shm/y"]);
      expect(further.stderr).toContain("No medium found");
      expect(further.status).toBe(1);
      expect(agent.state()).toMatchObject({ state: { id: "life", pid, status: "running" } });
    } finally {
      rmSync(`${work}/alone/jubako`, { force: true });
      agent.close();
      runtime(["delete", "--force", "life"]);
    }
  });

  test.skipIf(!Bun.which("newuidmap"))("ids of others are refused by newuidmap, and a machine without it says so", () => {
    const others = bundle(["id"], (spec) => {
      withSubIds(spec);
      spec.linux!.uidMappings![1]!.hostID = 100;
    });
    expect(runtime(["run", ...others, "no"]).stderr).toContain("newuidmap: uid range [1-1001) -> [100-1100) not allowed");
    const without = asUser(`PATH=/nonexistent ${words(["run", ...bundle(["id"], withSubIds), "no"])}`);
    expect(without.stderr).toContain("need newuidmap (Debian's package uidmap), which is not installed");
    expect(runtime(["list", "-q"]).stdout).toBe("");
  });

  test("what cannot be had is refused in words", () => {
    const refusal = (change: (spec: Spec) => void) => runtime(["run", ...bundle(["id"], change), "no"]).stderr;
    expect(refusal((spec) => void spec.linux!.namespaces!.pop())).toContain("rootless container requires user namespaces");
    expect(refusal((spec) => void delete spec.linux!.uidMappings)).toContain("requires at least one UID mapping");
    expect(
      refusal((spec) => {
        spec.process!.user = { additionalGids: [1] };
      }),
    ).toContain("cannot set any additional groups in a rootless container");
    expect(refusal((spec) => void spec.mounts!.find((m) => m.type === "devpts")!.options!.push("gid=5"))).toContain(
      "cannot specify gid= mount options for unmapped gid",
    );
    expect(
      refusal((spec) => {
        spec.linux!.resources = { pids: { limit: 5 } };
      }),
    ).toMatch(/could not join or create cgroup|no permission is granted/);
    expect(runtime(["--rootless", "perhaps", "list"]).stderr).toContain('parsing \\"perhaps\\"');
  });

  const pids = "/sys/fs/cgroup/pids";
  test.skipIf(!existsSync(`${pids}/cgroup.procs`))("a cgroup that was given to the user is used, for what it can", () => {
    const own = `${pids}/${here}`;
    mkdirSync(own);
    try {
      for (const name of ["", "cgroup.procs", "tasks"]) chownSync(`${own}/${name}`, UID, UID);
      const enter = `echo $$ >${own}/tasks`;
      const script = "grep :pids: /proc/self/cgroup; cat /sys/fs/cgroup/pids/pids.max";
      const limited = bundle(["sh", "-c", script], (spec) => {
        spec.linux!.resources = { pids: { limit: 7 } };
      });
      expect(runtime(["run", ...limited, "limited"], enter)).toMatchObject({
        stderr: "",
        stdout: expect.stringMatching(new RegExp(`/${here}/limited\n7\n$`)),
      });
      const more = bundle(["id"], (spec) => {
        spec.linux!.resources = { memory: { limit: 64 << 20 } };
      });
      expect(runtime(["run", ...more, "limited"], enter).stderr).toContain(
        "cannot set memory limit: container could not join or create cgroup",
      );
      expect(() => accessSync(`${own}/limited`, constants.F_OK)).toThrow();
    } finally {
      rmdirSync(own);
    }
  });

  test("root's container with a user namespace: a hook inside finds the bundle, is root there, and is told its own view's pid", () => {
    const hook = `${work}/inside`;
    writeFileSync(hook, `#!/bin/sh\n{ cat; id -u; cat /proc/self/uid_map; } >${work}/run/inside.out\n`);
    chmodSync(hook, 0o755);
    chmodSync(`${work}/run`, 0o777);
    const config = bundle(["id", "-u"], (spec) => {
      const maps = [{ containerID: 0, hostID: SUB, size: 1000 }];
      Object.assign(spec.linux!, { uidMappings: maps, gidMappings: maps });
      spec.hooks = { createContainer: [{ path: hook, env: ["PATH=/bin:/usr/bin"] }] };
    });
    const run = Bun.spawnSync([...program, "--root", `${work}/root`, "run", ...config, here], {
      stdin: "ignore",
    });
    expect({ stdout: run.stdout.toString(), stderr: run.stderr.toString() }).toEqual({ stdout: "0\n", stderr: "" });
    const [state, uid, map] = readFileSync(`${work}/run/inside.out`, "utf8").replace("}", "}\n").split("\n");
    expect(JSON.parse(state!)).toMatchObject({ id: here, pid: 1 });
    expect([uid, map!.trim().split(/\s+/).join(" ")]).toEqual(["0", `0 ${SUB} 1000`]);
  });

  test("root of a user namespace, as podman calls a runtime", () => {
    const config = bundle(["sh", "-c", "id -u; cat /proc/self/uid_map; echo x >/dev/null"], (spec) => {
      spec.linux!.namespaces!.pop();
      delete spec.linux!.uidMappings;
      delete spec.linux!.gidMappings;
    });
    const run = asUser(`unshare --user --map-root-user --mount ${words(["run", ...config, "inner"])}`);
    expect(run.stderr).toBe("");
    expect(run.stdout.trim().split(/\s+/)).toEqual(["0", "0", String(UID), "1"]);
  });
});
