// Published escapes from container runtimes, each really tried. CVE-2024-21626 through the command line stands in cli.test.ts ("a directory of
// the host that is open does not lead out").
import { afterAll, beforeAll, expect } from "bun:test";
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import type { Process, Spec } from "../oci/runtime-spec.ts";
import { processOf } from "./commands/exec.ts";
import { parseFlags } from "./commands/flags.ts";
import { busyboxRoot, programSpec, real } from "./harness.ts";
import { createRuntime, type RuntimeContainer } from "./index.ts";
import { exampleSpec } from "./spec.ts";

const runtime = createRuntime();
let work = "";
let number = 0;

beforeAll(() => {
  work = mkdtempSync(`${tmpdir()}/jubako-escapes-`);
  chmodSync(work, 0o755);
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

/** A root file system of its own, for the attacker to prepare. */
function image(): string {
  const root = `${work}/image${number++}`;
  busyboxRoot(root);
  return root;
}

interface Tried {
  output: () => string;
  container: RuntimeContainer;
  exec(args: string[], change?: (process: Process) => void): Promise<number>;
  end(): Promise<void>;
}

async function create(root: string, args: string[], change: (spec: Spec) => void = () => {}): Promise<Tried> {
  const spec = programSpec(root, args, change);
  const id = `jubako-escape-${process.pid}-${number++}`;
  const file = `${work}/${id}.out`;
  writeFileSync(file, "");
  const out = (await import("../linux/index.ts")).open(file, 0o2001);
  const io = { stdin: -1, stdout: out, stderr: out, terminal: false, hold: [], holdStdin: -1 };
  const { close } = await import("../linux/index.ts");
  try {
    const container = await runtime.create({ id, bundle: work, spec, rootfs: [], io, state: `${work}/${id}` });
    return {
      container,
      output: () => readFileSync(file, "utf8"),
      async exec(args, changed = () => {}) {
        const process: Process = { ...spec.process!, args };
        changed(process);
        const running = await container.exec({ execId: `e${number++}`, process, io });
        try {
          await running.start();
          return (await running.exited).status;
        } finally {
          running.release();
        }
      },
      end: async () => {
        await container.delete(true);
        close(out);
      },
    };
  } catch (error) {
    close(out);
    throw error;
  }
}

async function run(root: string, args: string[], change?: (spec: Spec) => void): Promise<string> {
  const tried = await create(root, args, change);
  try {
    await tried.container.init.start();
    await tried.container.init.exited;
    return tried.output();
  } finally {
    await tried.end();
  }
}

const refusal = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "",
    (error: Error) => error.message,
  );
const without = (spec: Spec, ...destinations: string[]) => {
  spec.mounts = spec.mounts!.filter((m) => !destinations.some((d) => m.destination === d || m.destination.startsWith(`${d}/`)));
};

real("CVE-2016-9962: descriptors of a process that is about to join cannot be seen from inside", async () => {
  const loop =
    "while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || ls -l $p/fd 2>/dev/null | grep -- '->' | grep -v ' /proc/'; done; done";
  const tried = await create(image(), ["sh", "-c", loop], (spec) => {
    spec.process!.capabilities = { bounding: [], effective: [], permitted: [], inheritable: [] };
  });
  try {
    await tried.container.init.start();
    for (let i = 0; i < 15; i++) await tried.exec(["true"]);
  } finally {
    await tried.end();
  }
  // Its own pipes, output and /dev/null; never the record, the memfd of the tape, or a directory of the host.
  expect(
    tried
      .output()
      .split("\n")
      .filter((line) => /memfd|record|cgroup|\/sys\/|anon_inode/.test(line)),
  ).toEqual([]);
});

real("CVE-2019-5736: the runtime's own program cannot be written through /proc/PID/exe", async () => {
  const digest = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");
  const programs = [`${import.meta.dir}/../../build/player`, process.execPath];
  const before = programs.map(digest);
  const root = image();
  symlinkSync("/proc/self/exe", `${root}/bin/itself`);
  const loop =
    "while :; do for p in /proc/[0-9]*; do ( exec 9<$p/exe && echo overwritten > /proc/self/fd/9 ) 2>/dev/null && echo WROTE $p; done; done";
  const tried = await create(root, ["sh", "-c", loop]);
  try {
    await tried.container.init.start();
    for (let i = 0; i < 10; i++) await tried.exec(["/bin/itself"]).catch(() => {});
  } finally {
    await tried.end();
  }
  // What is run as /proc/self/exe is the sealed copy of the player, which has no tape there and ends.
  expect(await run(root, ["/bin/itself"]).catch((error: Error) => error.message)).not.toContain("WROTE");
  expect(programs.map(digest)).toEqual(before);
  expect(
    tried
      .output()
      .split("\n")
      .filter((line) => line.startsWith("WROTE")),
  ).toEqual([]);
});

real("CVE-2019-16884: nothing is mounted on top of proc", async () => {
  const root = image();
  symlinkSync("/proc", `${root}/alias`);
  mkdirSync(`${work}/fake`, { recursive: true });
  for (const destination of ["/proc", "/proc/self/attr", "/alias/sys", "/./proc/sys"]) {
    const attack = run(root, ["true"], (spec) => {
      spec.mounts!.push({ destination, type: "bind", source: `${work}/fake`, options: ["bind"] });
    });
    expect(await refusal(attack)).toContain("inside /proc");
  }
  // lxcfs and its like are let through.
  writeFileSync(`${work}/fake/uptime`, "1.00 1.00\n");
  const cover = (spec: Spec) =>
    void spec.mounts!.push({ destination: "/proc/uptime", type: "bind", source: `${work}/fake/uptime`, options: ["bind"] });
  expect(await run(root, ["cat", "/proc/uptime"], cover)).toBe("1.00 1.00\n");
});

real("CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc and /sys as symbolic links", async () => {
  for (const name of ["proc", "sys"]) {
    const root = image();
    mkdirSync(`${root}/elsewhere`);
    symlinkSync("/elsewhere", `${root}/${name}`);
    expect(await refusal(run(root, ["true"]))).toContain("must be mounted on ordinary directory");
  }
});

real("CVE-2021-30465, CVE-2024-45310: links in the way of a mount, also while they change, lead nowhere outside", async () => {
  const outside = `${work}/outside`;
  mkdirSync(outside);
  const root = image();
  mkdirSync(`${root}/volume/real`, { recursive: true });
  symlinkSync(`../../../../../../../../..${outside}`, `${root}/volume/link`);
  mkdirSync(`${root}${outside}`, { recursive: true });
  const show = "readlink /proc/1/root; cat /proc/self/mountinfo | grep marker";
  const mark = (spec: Spec) => {
    spec.mounts!.push({ destination: "/volume/link/made/there", type: "tmpfs", source: "marker", options: [] });
    spec.mounts!.push({ destination: "/volume/link/file", type: "bind", source: `${root}/bin/busybox`, options: ["bind"] });
  };
  // Resolved inside the root: there the same names are made.
  expect(await run(root, ["sh", "-c", show], mark)).toContain(`${outside}/made/there`);
  expect(readdirSync(outside)).toEqual([]);

  // Someone with the volume exchanges a directory and a link all the while.
  symlinkSync("/../../../../../../../../../../../..", `${root}/volume/root`);
  const swap = `cd ${root}/volume; while :; do rm -rf a; mkdir a; rm -rf a; ln -s ../../../../../../../../.. a; done`;
  const swapper = spawn("sh", ["-c", swap], { stdio: "ignore" });
  try {
    for (let i = 0; i < 25; i++) {
      const attack = run(root, ["sh", "-c", `ls ${outside} /volume/a/work 2>/dev/null; ls -d /etc/shadow 2>/dev/null`], (spec) => {
        spec.mounts!.push({ destination: `/volume/a${outside}/x${i}`, type: "tmpfs", source: "marker", options: [] });
        spec.mounts!.push({ destination: "/volume/a", type: "tmpfs", source: "marker", options: [] });
      });
      // A creation may fail for the tree that changes under it; it may not show the host.
      expect(await attack.catch(() => "")).not.toContain("shadow");
      expect(readdirSync(outside)).toEqual([]);
    }
  } finally {
    swapper.kill("SIGKILL");
  }
  expect(spawnSync("grep", ["marker", "/proc/self/mountinfo"]).stdout.toString()).toBe("");
});

real("CVE-2022-29162: a further process has no inheritable capabilities that its container had not", async () => {
  const own: Spec = { ...exampleSpec() };
  own.process!.capabilities = { bounding: ["CAP_KILL"], effective: ["CAP_KILL"], permitted: ["CAP_KILL"] };
  const flags = parseFlags(["--cap", "CAP_NET_ADMIN", "id", "cat"], { cap: "values" });
  const process = processOf(flags, own);
  expect(process.capabilities?.effective).toContain("CAP_NET_ADMIN");
  expect(process.capabilities?.inheritable).toBeUndefined();
  const tried = await create(image(), ["sleep", "100"]);
  try {
    await tried.container.init.start();
    await tried.exec(["grep", "CapInh", "/proc/self/status"], (p) => {
      p.capabilities = process.capabilities!;
    });
    expect(tried.output()).toBe("CapInh:\t0000000000000000\n");
  } finally {
    await tried.end();
  }
});

real("CVE-2024-21626: a working directory by a descriptor does not lead out, for init and for further processes", async () => {
  const root = image();
  for (let fd = 3; fd < 64; fd++) {
    const text = await run(root, ["ls", "-d", "../../../../etc/shadow"], (spec) => {
      spec.process!.cwd = `/proc/self/fd/${fd}`;
    }).catch((error: Error) => error.message);
    expect(text).not.toMatch(/^\.\..*shadow$/m);
  }
  const tried = await create(image(), ["sleep", "100"]);
  try {
    await tried.container.init.start();
    for (let fd = 3; fd < 64; fd++) {
      await tried
        .exec(["ls", "-d", "../../../../etc/shadow"], (process) => {
          process.cwd = `/proc/self/fd/${fd}`;
        })
        .catch(() => {});
    }
    expect(tried.output()).not.toMatch(/^\.\..*shadow$/m);
  } finally {
    await tried.end();
  }
});

real("CVE-2025-31133: an image's own /dev/null is not what masked paths show", async () => {
  const attack = (prepare: (root: string) => void) => {
    const root = image();
    mkdirSync(`${root}/dev`);
    prepare(root);
    return refusal(
      run(root, ["cat", "/proc/kcore"], (spec) => {
        without(spec, "/dev");
        spec.linux!.maskedPaths = ["/proc/kcore", "/proc/sysrq-trigger"];
      }),
    );
  };
  expect(await attack((root) => symlinkSync("/proc/sysrq-trigger", `${root}/dev/null`))).toContain("/dev/null");
  expect(await attack((root) => writeFileSync(`${root}/dev/null`, "mine"))).toContain("/dev/null");
});

real("an image's own /dev/null does not become stdin, opened as root", async () => {
  const show = async (prepare: (root: string) => void, change: (spec: Spec) => void = () => {}) => {
    const root = image();
    mkdirSync(`${root}/dev`);
    prepare(root);
    return run(root, ["sh", "-c", "stat -L -c '%F %t:%T' /proc/self/fd/0; stat -c %m /dev/null"], (spec) => {
      without(spec, "/dev");
      spec.linux!.maskedPaths = [];
      change(spec);
    });
  };
  const null0 = "character special file 1:3";
  expect(await show((root) => symlinkSync("/secret", `${root}/dev/null`) ?? writeFileSync(`${root}/secret`, "root's"))).toStartWith(null0);
  expect(await show((root) => writeFileSync(`${root}/dev/null`, "mine"))).toStartWith(null0);
});

real("CVE-2025-52565: /dev/console as a link is not followed when the terminal is put there", async () => {
  const root = image();
  mkdirSync(`${root}/dev/pts`, { recursive: true });
  symlinkSync("/proc/sysrq-trigger", `${root}/dev/console`);
  const spec = exampleSpec();
  spec.process = { ...spec.process!, args: ["true"], terminal: true };
  spec.root = { path: root };
  spec.mounts = spec.mounts!.filter((m) => m.destination !== "/dev");
  const id = `jubako-escape-${process.pid}-${number++}`;
  const io = { stdin: -1, stdout: -1, stderr: -1, terminal: true, hold: [], holdStdin: -1 };
  const attack = runtime
    .create({ id, bundle: work, spec, rootfs: [], io, state: `${work}/${id}` })
    .then((container) => container.delete(true));
  expect(await refusal(attack)).toContain("/dev/console");
});

real("CVE-2025-52881: what is meant for procfs is written to nothing else", async () => {
  const root = image();
  mkdirSync(`${root}/proc/sys/net/ipv4`, { recursive: true });
  writeFileSync(`${root}/proc/sys/net/ipv4/ip_forward`, "");
  const attack = run(root, ["true"], (spec) => {
    without(spec, "/proc");
    spec.linux!.maskedPaths = [];
    spec.linux!.readonlyPaths = [];
    spec.linux!.sysctl = { "net.ipv4.ip_forward": "1" };
  });
  expect(await refusal(attack)).toContain("net.ipv4.ip_forward");
  expect(readFileSync(`${root}/proc/sys/net/ipv4/ip_forward`, "utf8")).toBe("");
});
