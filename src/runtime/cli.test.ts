// The command line, as a caller of runc uses it.
import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import type { Spec } from "../oci/runtime-spec.ts";
import { helps } from "./commands/help.ts";
import { bundles, main, real } from "./harness.ts";

const { id, work, bundle, jubako } = bundles("cli");

real("run gives output and status, and forgets the container", () => {
  const run = jubako("run", "-b", bundle(["sh", "-c", "echo hello; exit 5"]), id);
  expect(run).toMatchObject({ status: 5, stdout: "hello\n", stderr: "" });
  expect(jubako("list").stdout.split("\n").length).toBe(2);
});

real("create, state, start, exec, kill, delete", () => {
  const pidFile = `${work}/pid`;
  // What a detached container writes must not keep this test's pipes open.
  bundle(["sh", "-c", "exec sleep 100 >/dev/null 2>&1"]);
  const shell = `exec ${process.execPath} ${main} jubako-runtime --root ${work}/state create -b ${work} --pid-file ${pidFile} ${id} </dev/null >/dev/null 2>${work}/errors`;
  expect(Bun.spawnSync(["sh", "-c", shell]).exitCode).toBe(0);
  expect(JSON.parse(jubako("state", id).stdout)).toMatchObject({
    id,
    status: "created",
    bundle: work,
    pid: Number(readFileSync(pidFile, "utf8")),
  });
  expect(jubako("create", "-b", work, id)).toMatchObject({ status: 1 });
  expect(jubako("start", id).status).toBe(0);
  expect(jubako("start", id).stderr).toContain("cannot start an already running container");
  expect(JSON.parse(jubako("state", id).stdout).status).toBe("running");
  expect(jubako("exec", id, "sh", "-c", "echo inside; exit 9")).toMatchObject({ status: 9, stdout: "inside\n" });
  const missing = jubako("exec", id, "nope");
  expect(missing.status).toBe(255);
  expect(missing.stderr).toContain('exec failed: unable to start container process: exec: \\"nope\\": executable file not found in $PATH');
  expect(jubako("delete", id)).toMatchObject({ status: 1 });
  expect(jubako("pause", id).status).toBe(0);
  expect(JSON.parse(jubako("list", "--format", "json").stdout)[0].status).toBe("paused");
  expect(jubako("resume", id).status).toBe(0);
  expect(JSON.parse(jubako("events", "--stats", id).stdout)).toMatchObject({ type: "stats", id });
  expect(jubako("kill", id, "KILL").status).toBe(0);
  for (let i = 0; i < 100 && JSON.parse(jubako("state", id).stdout).status !== "stopped"; i++) Bun.sleepSync(10);
  expect(jubako("exec", id, "true").stderr).toContain("cannot exec in a stopped container");
  expect(jubako("delete", id).status).toBe(0);
  expect(jubako("state", id)).toMatchObject({ status: 1 });
});

real("errors in runc's forms: log, status, nothing left", () => {
  const log = `${work}/log`;
  const failed = jubako("--log", log, "--log-format", "json", "run", "-b", bundle(["nope"]), id);
  expect(failed.status).toBe(1);
  expect(JSON.parse(readFileSync(log, "utf8"))).toMatchObject({
    level: "error",
    msg: 'runc run failed: unable to start container process: exec: "nope": executable file not found in $PATH',
  });
  expect(jubako("run", "-b", `${work}/none`, id).stderr).toContain("config.json not found");
  expect(jubako("run", "-b", work, "../x").stderr).toContain("invalid container ID format");
  expect(jubako("delete", "--force", id).status).toBe(0);
  expect(jubako("nosuch").status).toBe(1);
  const step = jubako(
    "run",
    "-b",
    bundle(["true"], (spec) => spec.mounts!.push({ destination: "/mnt", type: "nosuchfs", source: "none" })),
    id,
  );
  expect(step.stderr).toContain("mount nosuchfs on /mnt: ENODEV (no such device)");
  const wrong = (change: (spec: Spec) => void) => jubako("run", "-b", bundle(["true"], change), id).stderr;
  expect(wrong((spec) => Object.assign(spec.process!, { user: { uid: "0" } }))).toContain("process.user.uid must be an integer");
  expect(wrong((spec) => Object.assign(spec, { mounts: [{ destination: "/x", type: ["tmpfs"] }] }))).toContain(
    "mounts[0].type must be a string",
  );
  expect(wrong((spec) => Object.assign(spec.linux!, { resources: { devices: "all" } }))).toContain(
    "linux.resources.devices must be a list",
  );
  expect(jubako("list", "-q").stdout).toBe("");
});

real("explain prints the tape and does nothing", () => {
  const text = jubako("explain", bundle(["true"])).stdout;
  expect(text).toContain("# mount proc on /proc");
  expect(text).toContain("pivot_root(");
  const steps = JSON.parse(jubako("explain", "--json", work).stdout);
  expect(steps[0]).toMatchObject({ index: 0, op: "syscall" });
  expect(existsSync(`${work}/state/ID`)).toBe(false);
  expect(jubako("create", "--dry-run", "-b", work, id).stdout).toContain("# mount proc on /proc");
  expect(JSON.parse(jubako("run", "--dry-run", "--json", "-b", work, id).stdout)).toHaveLength(steps.length);
  expect(existsSync(`${work}/state/${id}`)).toBe(false);
});

real("help for every command; --debug tells the phases, and the step that failed", () => {
  for (const name of Object.keys(helps)) expect(jubako(name, "--help").stdout).toContain(`jubako-runtime ${name}`);
  expect(jubako("--help").stdout).toContain("checkpoint a running container");
  const debugged = jubako("--debug", "--log-format", "json", "run", "-b", bundle(["true"]), id);
  const lines = debugged.stderr
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { level: string; msg: string });
  expect(lines.map(({ level }) => level)).toEqual(["debug", "debug", "debug"]);
  expect(lines[0]!.msg).toMatch(/a tape of \d+ steps/);
  const failed = jubako(
    "--debug",
    "run",
    "-b",
    bundle(["true"], (spec) => spec.mounts!.push({ destination: "/x", type: "nosuchfs" })),
    id,
  );
  expect(failed.stderr).toMatch(/level=debug msg="step \d+: fs = fsopen\(.*nosuchfs.*ENODEV/);
});

real("a directory of the host that is open does not lead out (CVE-2024-21626)", () => {
  const command = (cwd: string) => {
    bundle(["sh", "-c", "echo in $(pwd)"], (spec) => {
      spec.process!.cwd = cwd;
    });
    return Bun.spawnSync([
      "sh",
      "-c",
      `${process.execPath} ${main} jubako-runtime --root ${work}/state run --preserve-fds 1 -b ${work} ${id} 3</etc 2>&1`,
    ]);
  };
  for (const cwd of ["/proc/self/fd/3", "/proc/self/fd/55", "/proc/self/fd/7"]) {
    const { exitCode, stdout } = command(cwd);
    expect(exitCode).toBe(1);
    expect(stdout.toString()).toMatch(/working directory|set in config.json/);
  }
  expect(command("/made/for/it").stdout.toString()).toBe("in /made/for/it\n");
});

real("descriptors are preserved only where asked for", () => {
  bundle(["sh", "-c", "echo 3: >&3; echo 4: >&4"]);
  const command = (n: number) =>
    `${process.execPath} ${main} jubako-runtime --root ${work}/state run --preserve-fds ${n} -b ${work} ${id} 3>${work}/three 4>${work}/four 2>/dev/null`;
  Bun.spawnSync(["sh", "-c", command(2)]);
  expect(readFileSync(`${work}/four`, "utf8")).toBe("4:\n");
  Bun.spawnSync(["sh", "-c", command(1)]);
  expect(readFileSync(`${work}/three`, "utf8")).toBe("3:\n");
  expect(readFileSync(`${work}/four`, "utf8")).toBe("");
});

test("features names what the specification's schema knows", () => {
  const run = Bun.spawnSync([process.execPath, `${main}`, "jubako-runtime", "features"]);
  const described = JSON.parse(run.stdout.toString());
  expect(Object.keys(described.linux).sort()).toEqual(
    [
      ["namespaces", "capabilities", "cgroup", "seccomp", "apparmor", "selinux", "intelRdt"],
      ["memoryPolicy", "mountExtensions", "netDevices"],
    ]
      .flat()
      .sort(),
  );
  expect(described.linux.seccomp.actions).toContain("SCMP_ACT_NOTIFY");
  expect(described.linux.seccomp.archs).toHaveLength(23);
  expect(described.mountOptions).toContain("rro");
});
