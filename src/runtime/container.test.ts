// Real containers of busybox, in process.
import { afterAll, beforeAll, expect } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { close, O_NONBLOCK, pipe, read } from "../linux/index.ts";
import type { Process, Spec } from "../oci/runtime-spec.ts";
import { hierarchies } from "./cgroups/index.ts";
import { busybox, busyboxRoot, programSpec, real } from "./harness.ts";
import { createRuntime, type ProcessIo, type RuntimeContainer, resolveDockerSeccomp } from "./index.ts";
import { bitList } from "./plan/settings.ts";

const possible = process.getuid?.() === 0 && busybox !== undefined;
let work = "";
let number = 0;
const runtime = createRuntime();

beforeAll(() => {
  if (!possible) return;
  work = mkdtempSync(`${tmpdir()}/jubako-runtime-test-`);
  chmodSync(work, 0o755);
  busyboxRoot(`${work}/rootfs`);
  mkdirSync(`${work}/rootfs/etc`);
  writeFileSync(`${work}/rootfs/etc/passwd`, "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n");
});
afterAll(() => {
  if (work) rmSync(work, { recursive: true, force: true });
});

const specOf = (args: string[], change?: (spec: Spec) => void) => programSpec(`${work}/rootfs`, args, change);

interface Made {
  container: RuntimeContainer;
  output: () => string;
  end: () => Promise<void>;
  state: string;
}

function ioOf(write: number): ProcessIo {
  return { stdin: -1, stdout: write, stderr: write, terminal: false, hold: [], holdStdin: -1 };
}

function drain(fd: number): string {
  const chunks: Buffer[] = [];
  for (;;) {
    const buffer = Buffer.alloc(65536);
    const n = read(fd, buffer);
    if (!n) return Buffer.concat(chunks).toString();
    chunks.push(buffer.subarray(0, n));
  }
}

async function make(spec: Spec): Promise<Made> {
  const id = `jubako-test-${process.pid}-${number++}`;
  const bundle = `${work}/${id}`;
  mkdirSync(bundle);
  writeFileSync(`${bundle}/config.json`, JSON.stringify(spec));
  const out = pipe(O_NONBLOCK);
  const state = `${bundle}/state`;
  try {
    const container = await runtime.create({ id, bundle, spec, rootfs: [], io: ioOf(out.write), state });
    return {
      container,
      state,
      output: () => drain(out.read),
      end: async () => {
        await container.delete(true);
        close(out.read);
      },
    };
  } catch (error) {
    close(out.read);
    throw error;
  } finally {
    close(out.write);
  }
}

async function run(spec: Spec): Promise<{ status: number; output: string }> {
  const { container, output, end } = await make(spec);
  await container.init.start();
  const { status } = await container.init.exited;
  const text = output();
  await end();
  return { status, output: text };
}

const fdCount = () => readdirSync("/proc/self/fd").length;

real("a program runs in its own namespaces with what the specification promises, and nothing stays behind", async () => {
  await run(specOf(["true"]));
  await Bun.sleep(50);
  const before = fdCount();
  const { status, output } = await run(
    specOf(["sh", "-c", "echo pid $$; hostname; ls /dev; echo $HOME; id; cat /proc/self/cgroup; ls /proc/self/fd; exit 7"], (spec) => {
      spec.hostname = "box";
      spec.process!.user = { uid: 1000, gid: 1000, additionalGids: [7] };
    }),
  );
  expect(status).toBe(7);
  const lines = output.split("\n");
  expect(lines[0]).toBe("pid 1");
  expect(lines[1]).toBe("box");
  for (const name of ["null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "mqueue", "fd", "stdin", "ptmx"])
    expect(lines).toContain(name);
  expect(lines).toContain("/home/ann");
  expect(lines).toContain("uid=1000(ann) gid=1000 groups=7");
  expect(lines.filter((line) => /^\d+$/.test(line))).toEqual(["0", "1", "2", "3"]);
  await Bun.sleep(50);
  expect(fdCount()).toBe(before);
  for (const mount of hierarchies().mounts.values())
    expect(readdirSync(mount).filter((name) => name.includes(`jubako-test-${process.pid}`))).toEqual([]);
});

real("programs that are not there or cannot be run fail at creation, in runc's words, and leave nothing", async () => {
  await run(specOf(["true"]));
  await Bun.sleep(50);
  const before = fdCount();
  await expect(make(specOf(["nope"]))).rejects.toThrow('exec: "nope": executable file not found in $PATH');
  await expect(make(specOf(["/nope"]))).rejects.toThrow('exec: "/nope": stat /nope: no such file or directory');
  await expect(make(specOf(["/etc/passwd"]))).rejects.toThrow('exec: "/etc/passwd": permission denied');
  const bad = specOf(["true"], (spec) => {
    spec.mounts = [...spec.mounts!, { destination: "/mnt", type: "nosuchfs", source: "x" }];
  });
  await expect(make(bad)).rejects.toThrow("mount nosuchfs on /mnt: ENODEV");
  await Bun.sleep(50);
  expect(fdCount()).toBe(before);
  expect(readdirSync(work).flatMap((name) => (existsSync(`${work}/${name}/state`) ? [name] : []))).toEqual([]);
});

real("masked, read-only and bind-mounted paths", async () => {
  writeFileSync(`${work}/hosts`, "127.0.0.1 here\n");
  const { output } = await run(
    specOf(
      [
        "sh",
        "-c",
        "cat /etc/hosts; cat /proc/timer_list | wc -c; ls /proc/acpi | wc -l; echo 1 > /proc/sys/kernel/printk; echo x > /etc/hosts; echo y > /new",
      ],
      (spec) => {
        spec.root!.readonly = true;
        spec.mounts = [
          ...spec.mounts!,
          { destination: "/etc/hosts", type: "bind", source: `${work}/hosts`, options: ["rbind", "ro", "rprivate"] },
        ];
      },
    ),
  );
  expect(output).toStartWith("127.0.0.1 here\n0\n0\n");
  expect(output.match(/Read-only file system/g)?.length).toBe(3);
});

real("a symlink in the image does not lead a mount out of the root", async () => {
  const outside = mkdtempSync(`${tmpdir()}/jubako-runtime-outside-`);
  rmSync(`${work}/rootfs/trap`, { force: true });
  symlinkSync(outside, `${work}/rootfs/trap`);
  const { status } = await run(
    specOf(["true"], (spec) => {
      spec.mounts = [...spec.mounts!, { destination: "/data", type: "tmpfs", source: "tmpfs" }];
    }),
  );
  expect(status).toBe(0);
  const trapped = specOf(["true"], (spec) => {
    spec.mounts = [...spec.mounts!, { destination: "/trap/inner", type: "tmpfs", source: "tmpfs" }];
  });
  await run(trapped).catch(() => undefined);
  expect(readdirSync(outside)).toEqual([]);
  rmSync(outside, { recursive: true });
  rmSync(`${work}/rootfs/trap`);
});

real("seccomp with and without no_new_privs, capabilities, rlimits", async () => {
  for (const noNewPrivileges of [false, true]) {
    const { output } = await run(
      specOf(["sh", "-c", "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; ulimit -n; mount -t tmpfs x /mnt 2>&1"], (spec) => {
        spec.process!.noNewPrivileges = noNewPrivileges;
        spec.process!.rlimits = [{ type: "RLIMIT_NOFILE", soft: 100, hard: 200 }];
        spec.linux!.seccomp = resolveDockerSeccomp(undefined, { capabilities: spec.process!.capabilities!.bounding! });
      }),
    );
    expect(output).toContain("CapEff:\t0000000020000420");
    expect(output).toContain(`NoNewPrivs:\t${noNewPrivileges ? 1 : 0}`);
    expect(output).toContain("Seccomp:\t2");
    expect(output).toContain("\n100\n");
  }
});

real("limits of memory and processes hold, and the OOM kill is told", async () => {
  const { container, end } = await make(
    specOf(["sh", "-c", "head -c 100m /dev/zero | dd bs=100M count=1 of=/dev/null iflag=fullblock"], (spec) => {
      spec.linux!.resources = { ...spec.linux!.resources, memory: { limit: 16 << 20 }, pids: { limit: 50 } };
    }),
  );
  let told = 0;
  const stop = container.onOom(() => told++);
  expect(container.stats().memory?.limit).toBe(16 << 20);
  expect(container.stats().pids?.limit).toBe(50);
  await container.init.start();
  await container.init.exited;
  await Bun.sleep(20);
  expect(told).toBeGreaterThan(0);
  stop();
  await end();
});

async function exec(container: RuntimeContainer, process: Partial<Process>): Promise<{ status: number; output: string }> {
  const out = pipe(O_NONBLOCK);
  const execId = `e${number++}`;
  try {
    const running = await container.exec({ execId, process: { cwd: "/", env: ["PATH=/bin"], ...process }, io: ioOf(out.write) });
    close(out.write);
    out.write = -1;
    await running.start();
    const { status } = await running.exited;
    const output = drain(out.read);
    running.release();
    return { status, output };
  } finally {
    close(out.read);
    close(out.write);
  }
}

real("exec joins the container; pause, resume, signals", async () => {
  const { container, end } = await make(
    specOf(["sleep", "100"], (spec) => {
      spec.hostname = "there";
    }),
  );
  await container.init.start();
  const { status, output } = await exec(container, {
    args: ["sh", "-c", "hostname; ps; cat /proc/self/cgroup; exit 5"],
    user: { uid: 0, gid: 0 },
  });
  expect(status).toBe(5);
  expect(output).toStartWith("there\n");
  expect(output).toContain("sleep 100");
  expect(output).toContain(container.id);
  await expect(exec(container, { args: ["nope"] })).rejects.toThrow('exec: "nope": executable file not found in $PATH');
  await container.pause();
  expect(readFileSync(`/proc/${container.init.pid}/stat`, "latin1")).toMatch(/\) [DS] /);
  await container.resume();
  expect(container.pids()).toEqual([container.init.pid]);
  await expect(container.delete()).rejects.toThrow("not stopped");
  expect(container.init.signal(9)).toBe(true);
  expect(await container.init.exited).toMatchObject({ status: 137 });
  expect(container.init.signal(9)).toBe(false);
  await end();
});

real("a terminal: controlling, sized, of the user; resize arrives", async () => {
  const spec = specOf(["sh", "-c", "tty; stty size; read x; stty size"], (s) => {
    s.process!.consoleSize = { height: 33, width: 77 };
  });
  const id = `jubako-test-${process.pid}-tty`;
  const io: ProcessIo = { stdin: -1, stdout: -1, stderr: -1, terminal: true, hold: [], holdStdin: -1 };
  const container = await runtime.create({ id, bundle: work, spec, rootfs: [], io, state: `${work}/tty-state` });
  const { terminal } = container.init;
  await container.init.start();
  let text = "";
  const until = async (wanted: string) => {
    for (let i = 0; i < 200 && !text.includes(wanted); i++) {
      const buffer = Buffer.alloc(1000);
      try {
        const n = read(terminal!, buffer);
        if (n) text += buffer.toString("utf8", 0, n);
      } catch {
        return; // EIO: the last slave was closed
      }
      await Bun.sleep(5);
    }
  };
  await until("33 77");
  container.init.resize(100, 40);
  const { write } = await import("../linux/index.ts");
  write(terminal!, Buffer.from("\n"));
  await until("40 100");
  expect(text).toContain("/dev/pts/0\r\n33 77");
  expect(text).toContain("40 100");
  expect((await container.init.exited).status).toBe(0);
  await container.delete();
});

real("another process of ours adopts: created, running, ended, with its execs", async () => {
  const started = await make(specOf(["sleep", "100"]));
  await started.container.init.start();
  const created = await make(specOf(["sh", "-c", "echo late; exit 3"]));
  const ended = await make(specOf(["sh", "-c", "exit 4"]));
  await ended.container.init.start();
  await ended.container.init.exited;
  const out = pipe();
  const running = await started.container.exec({ execId: "side", process: { cwd: "/", args: ["/bin/sleep", "99"] }, io: ioOf(out.write) });
  await running.start();

  const first = await runtime.adopt(started.container.id, started.state);
  expect(first?.container.init.pid).toBe(started.container.init.pid);
  expect([...first!.execs.keys()]).toEqual(["side"]);
  expect(await exec(first!.container, { args: ["hostname"] })).toMatchObject({ status: 0 });
  first!.execs.get("side")!.signal(15);
  expect(await first!.execs.get("side")!.exited).toMatchObject({ status: 143 });
  const second = await runtime.adopt(created.container.id, created.state);
  await second!.container.init.start();
  expect(await second!.container.init.exited).toMatchObject({ status: 3 });
  expect(created.output()).toBe("late\n");
  const third = await runtime.adopt(ended.container.id, ended.state);
  expect(await third!.container.init.exited).toMatchObject({ status: 4 });

  await first!.container.delete(true);
  await second!.container.delete();
  await third!.container.delete();
  for (const made of [started, created, ended]) await made.end();
  close(out.read);
  close(out.write);
  expect(await runtime.adopt("gone", `${work}/gone`)).toBeUndefined();
});

real("a keeper's death ends its container, and a successor finds it so", async () => {
  const { container, state, end } = await make(specOf(["sleep", "100"]));
  await container.init.start();
  process.kill(container.init.keeper, 9);
  expect(await container.init.exited).toMatchObject({ status: 137 });
  expect(await runtime.adopt(container.id, state)).toBeUndefined();
  expect(existsSync(state)).toBe(false);
  await end();
});

real("an overlay of two layers, mounted only inside", async () => {
  for (const name of ["upper", "work", "top"]) mkdirSync(`${work}/${name}`);
  writeFileSync(`${work}/top/added`, "from the layer above\n");
  const spec = specOf(["sh", "-c", "cat /added; echo kept > /new; mount | head -1"]);
  spec.root = { path: "rootfs" };
  const rootfs = [
    {
      type: "overlay",
      source: "overlay",
      options: [`lowerdir=${work}/top:${work}/rootfs`, `upperdir=${work}/upper`, `workdir=${work}/work`],
    },
  ];
  const out = pipe(O_NONBLOCK);
  const id = `jubako-test-${process.pid}-overlay`;
  const container = await runtime.create({ id, bundle: work, spec, rootfs, io: ioOf(out.write), state: `${work}/overlay-state` });
  close(out.write);
  await container.init.start();
  expect(readFileSync("/proc/mounts", "utf8")).not.toContain(`${work}/upper`);
  expect((await container.init.exited).status).toBe(0);
  const output = drain(out.read);
  expect(output).toStartWith("from the layer above\noverlay on / type overlay");
  expect(readFileSync(`${work}/upper/new`, "utf8")).toBe("kept\n");
  await container.delete();
  close(out.read);
});

real("a root file system of several mounts, and tmpcopyup of what only an overlay will show", async () => {
  for (const name of ["m-upper", "m-work", "m-top/data/deep", "m-part"]) mkdirSync(`${work}/${name}`, { recursive: true });
  writeFileSync(`${work}/m-top/data/deep/file`, "from a layer\n");
  writeFileSync(`${work}/m-part/inside`, "from another mount\n");
  const spec = specOf([
    "sh",
    "-c",
    "cat /data/deep/file /some/where/inside; grep -c ' /data ' /proc/self/mountinfo; echo gone > /data/new",
  ]);
  spec.root = { path: "rootfs" };
  spec.mounts!.push({ destination: "/data", type: "tmpfs", source: "tmpfs", options: ["tmpcopyup"] });
  const layers = [`lowerdir=${work}/m-top:${work}/rootfs`, `upperdir=${work}/m-upper`, `workdir=${work}/m-work`];
  const rootfs = [
    { type: "overlay", source: "overlay", options: layers },
    { type: "bind", source: `${work}/m-part`, target: "/some/where", options: ["rbind", "ro"] },
  ];
  const out = pipe(O_NONBLOCK);
  const id = `jubako-test-${process.pid}-parts`;
  const container = await runtime.create({ id, bundle: work, spec, rootfs, io: ioOf(out.write), state: `${work}/parts-state` });
  close(out.write);
  try {
    await container.init.start();
    await container.init.exited;
    expect(drain(out.read)).toBe("from a layer\nfrom another mount\n1\n");
    expect(existsSync(`${work}/m-upper/data/new`)).toBe(false);
  } finally {
    await container.delete(true);
    close(out.read);
  }
});

real("the steps for older kernels work too", async () => {
  const { facts } = await import("./facts.ts");
  const { kernel } = facts();
  facts().kernel = 6.01;
  try {
    for (const name of ["upper2", "work2", "rootfs2"]) mkdirSync(`${work}/${name}`);
    mkdirSync(`${work}/a:b`);
    writeFileSync(`${work}/a:b/added`, "above\n");
    const spec = specOf(["sh", "-c", "cat /added; mount | grep -c 'on / type overlay'; ls /proc/acpi | wc -l"]);
    spec.root = { path: "rootfs2" };
    const rootfs = [
      {
        type: "overlay",
        source: "overlay",
        options: [`lowerdir=${work}/a\\:b:${work}/rootfs`, `upperdir=${work}/upper2`, `workdir=${work}/work2`],
      },
    ];
    const out = pipe(O_NONBLOCK);
    const id = `jubako-test-${process.pid}-old`;
    const container = await runtime.create({ id, bundle: work, spec, rootfs, io: ioOf(out.write), state: `${work}/old-state` });
    close(out.write);
    await container.init.start();
    await container.init.exited;
    expect(drain(out.read)).toBe("above\n1\n0\n");
    await container.delete();
    close(out.read);
  } finally {
    facts().kernel = kernel;
  }
});

real("namespaces of another container, by path", async () => {
  const first = await make(specOf(["sleep", "100"]));
  await first.container.init.start();
  const ns = (name: string) => `/proc/${first.container.init.pid}/ns/${name}`;

  const { output, status } = await run(
    specOf(["sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; ps; cat /proc/self/cgroup"], (spec) => {
      delete spec.hostname;
      spec.linux!.namespaces = [
        { type: "mount" },
        { type: "pid", path: ns("pid") },
        { type: "network", path: ns("net") },
        { type: "ipc", path: ns("ipc") },
        { type: "uts", path: ns("uts") },
        { type: "cgroup" },
      ];
    }),
  );
  expect(status).toBe(0);
  expect(output).toStartWith(`${readlinkSync(ns("net"))}\n${readlinkSync(ns("ipc"))}\n`);
  expect(output).toContain("sleep 100");
  expect(output).toMatch(/pids?[^\n]*:\/\n|0::\/\n/);
  await first.end();
});

real("a user namespace: root inside is nobody special outside", async () => {
  const map = [{ containerID: 0, hostID: 100000, size: 65536 }];
  const { output, status } = await run(
    specOf(["sh", "-c", "id; cat /proc/self/uid_map; echo x > /dev/null && echo null; echo y > /etc/passwd"], (spec) => {
      spec.linux!.namespaces!.push({ type: "user" });
      spec.linux!.uidMappings = map;
      spec.linux!.gidMappings = map;
    }),
  );
  expect(status).toBe(1);
  expect(output).toContain("uid=0(root)");
  expect(output).toMatch(/0 +100000 +65536/);
  expect(output).toContain("\nnull\n");
  expect(output).toContain("Permission denied");
});

real("an idmapped mount: files belong to someone else inside", async () => {
  mkdirSync(`${work}/owned`);
  writeFileSync(`${work}/owned/file`, "x");
  const map = [{ containerID: 0, hostID: 1000, size: 1 }];
  const { output, status } = await run(
    specOf(["sh", "-c", "ls -ln /data/file; echo y > /data/made"], (spec) => {
      spec.process!.user = { uid: 1000, gid: 1000 };
      spec.mounts!.push({
        destination: "/data",
        type: "bind",
        source: `${work}/owned`,
        options: ["bind", "idmap"],
        uidMappings: map,
        gidMappings: map,
      });
    }),
  );
  expect(output).toContain(" 1000     1000 ");
  expect(status).toBe(0);
  expect(statSync(`${work}/owned/made`).uid).toBe(0);
});

real("hooks run in their order, and one that fails undoes the container", async () => {
  const log = `${work}/hooks`;
  const hook = (name: string) => ({ path: "/bin/sh", args: ["sh", "-c", `cat > /dev/null; echo ${name} >> ${log}`] });
  const names = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] as const;
  await run(
    specOf(["true"], (spec) => {
      spec.hooks = Object.fromEntries(names.map((name) => [name, [hook(name)]]));
    }),
  );
  expect(readFileSync(log, "utf8")).toBe(`${names.join("\n")}\n`);
  const failing = specOf(["true"], (spec) => {
    spec.hooks = { createRuntime: [{ path: "/bin/sh", args: ["sh", "-c", "echo no network >&2; exit 3"] }] };
  });
  await expect(make(failing)).rejects.toThrow(
    "error running createRuntime hook #0: error running hook: exit status 3, stdout: , stderr: no network",
  );
});

real("a limit that is changed; stdin that ends only when told", async () => {
  const input = pipe();
  const out = pipe(O_NONBLOCK);
  const id = `jubako-test-${process.pid}-stdin`;
  const io: ProcessIo = { stdin: input.read, stdout: out.write, stderr: -1, terminal: false, hold: [out.read], holdStdin: input.write };
  const container = await runtime.create({ id, bundle: work, spec: specOf(["cat"]), rootfs: [], io, state: `${work}/stdin-state` });
  for (const fd of [input.read, input.write, out.write]) close(fd);
  await container.init.start();
  container.update({ memory: { limit: 64 << 20 }, cpu: { shares: 512 } });
  expect(container.stats().memory?.limit).toBe(64 << 20);
  let over = false;
  void container.init.exited.then(() => {
    over = true;
  });
  await Bun.sleep(30);
  expect(over).toBe(false);
  container.init.closeStdin();
  expect((await container.init.exited).status).toBe(0);
  await container.delete();
  close(out.read);
});

real("kill -9 of the runtime's process at any moment: everything is adopted or cleaned up, and nothing stays", async () => {
  const states = `${work}/killed`;
  mkdirSync(states);
  writeFileSync(`${work}/config.json`, JSON.stringify(specOf(["sleep", "100"])));
  const victim = `
    import { readFileSync } from "node:fs";
    import { createRuntime } from "${import.meta.dir}/index.ts";
    const spec = JSON.parse(readFileSync("${work}/config.json", "utf8"));
    const runtime = createRuntime();
    const io = { stdin: -1, stdout: -1, stderr: -1, terminal: false, hold: [], holdStdin: -1 };
    console.log("ready");
    for (let i = 0; ; i += 2) await Promise.all([i, i + 1].map(async (n) => {
      const id = process.argv.at(-1) + n;
      const container = await runtime.create({ id, bundle: "${work}", spec, rootfs: [], io, state: "${states}/" + id });
      await container.init.start();
      if (n % 2) await container.delete(true);
    }));`;
  writeFileSync(`${work}/victim.ts`, victim);
  for (let round = 0; round < 4; round++) {
    const prefix = `jubako-test-${process.pid}-killed-${round}-`;
    const child = Bun.spawn([process.execPath, `${work}/victim.ts`, prefix], { stdout: "pipe", stderr: "inherit" });
    for await (const _ of child.stdout) break;
    await Bun.sleep(25 + 13 * round);
    child.kill(9);
    await child.exited;
    for (const id of readdirSync(states)) await (await runtime.adopt(id, `${states}/${id}`))?.container.delete(true);
  }
  expect(readdirSync(states)).toEqual([]);
  // Released keepers are not this process' children: their end is not waited for.
  await Bun.sleep(200);
  const held = readdirSync("/proc").filter((pid) => {
    try {
      return (
        readFileSync(`/proc/${pid}/cmdline`, "utf8").startsWith("jubako-keeper") && readlinkSync(`/proc/${pid}/fd/52`).startsWith(states)
      );
    } catch {
      return false;
    }
  });
  expect(held).toEqual([]);
  for (const mount of hierarchies().mounts.values())
    expect(readdirSync(mount).filter((name) => name.includes(`${process.pid}-killed`))).toEqual([]);
});

real("tmpcopyup: a tmpfs begins with what lies beneath, without following links", async () => {
  mkdirSync(`${work}/rootfs/seed/sub`, { recursive: true });
  writeFileSync(`${work}/rootfs/seed/sub/file`, "x".repeat(100_000));
  chmodSync(`${work}/rootfs/seed/sub/file`, 0o4755);
  symlinkSync("/etc/passwd", `${work}/rootfs/seed/link`);
  chmodSync(`${work}/rootfs/seed`, 0o1777);
  const script = "ls -lan /seed /seed/sub; wc -c < /seed/sub/file; echo new > /seed/new; grep ' /seed ' /proc/self/mountinfo";
  const { status, output } = await run(
    specOf(["sh", "-c", script], (spec) => {
      spec.root!.readonly = true;
      spec.mounts!.push({ destination: "/seed", type: "tmpfs", source: "tmpfs", options: ["tmpcopyup", "nosuid"] });
      spec.mounts!.push({ destination: "/nowhere", type: "tmpfs", source: "tmpfs", options: ["tmpcopyup", "ro"] });
    }),
  );
  expect(status).toBe(0);
  expect(output).toMatch(/^drwxrwxrwt .* \.$/m);
  expect(output).toMatch(/^-rwsr-xr-x +1 0 +0 +100000 .* file$/m);
  expect(output).toMatch(/^lrwxrwxrwx .* link -> \/etc\/passwd$/m);
  expect(output).toMatch(/^100000$/m);
  expect(output).toContain("- tmpfs tmpfs");
  expect(existsSync(`${work}/rootfs/seed/new`)).toBe(false);
});

real("a memory policy for all; the cpus of a further process", async () => {
  const { container, end } = await make(
    specOf(["sleep", "100"], (spec) => {
      spec.linux!.memoryPolicy = { mode: "MPOL_BIND", nodes: "0", flags: ["MPOL_F_STATIC_NODES"] };
      spec.process!.execCPUAffinity = { initial: "0", final: "0" };
    }),
  );
  try {
    await container.init.start();
    expect(readFileSync(`/proc/${container.init.pid}/numa_maps`, "utf8")).toContain("bind=static:0");
    expect((await exec(container, { args: ["grep", "Cpus_allowed_list", "/proc/self/status"] })).output).toBe("Cpus_allowed_list:\t0\n");
  } finally {
    await end();
  }
  expect(() => bitList("0-", "a list")).toThrow("not a list");
  expect(bitList("1,3-4,64", "a list")).toEqual(new Uint8Array([0b11010, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]));
});
