// A virtual machine for what this machine's kernel is not set up for: Debian's kernel, pure cgroup v2, a first file system made on the spot with
// busybox and dist/jubako. It runs one script and ends.
//
//   const reason = machineLacks()                          why none can be had here, if so
//   const { status, output, sections } = await boot({ script: "echo '== uname'; uname -r" })
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, lstatSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bin, root, which } from "../support/engine.ts";
import { type Entry, writeInitramfs } from "./initramfs.ts";
import { findKernel, type Kernel } from "./kernel.ts";
import { systemdFiles, systemdPrograms } from "./systemd.ts";

export interface Machine {
  /** For busybox' sh, with dist/bin in PATH. */
  script: string;
  /** More files, by path without a leading slash. */
  files?: Record<string, Entry>;
  /** Of the kernel, beside those that an engine needs. */
  modules?: string[];
  memoryMb?: number;
  /** More for the kernel's command line. */
  commandLine?: string;
  /** The script is a service of systemd's; see systemd.ts. */
  systemd?: boolean;
  /** Two processors, each with half of the memory as a node of its own, and a disk, vda: a whole PC, which takes longer to start. */
  whole?: boolean;
  /** systemd mounts v1's controllers, with v2 beside them. */
  hybrid?: boolean;
  /** BOOT_MS unless told. */
  timeoutMs?: number;
  /** Gets what the machine writes, as it does. */
  watch?: (chunk: string) => void;
}

export interface Outcome {
  /** The script's; undefined where the machine ended before it did. */
  status: number | undefined;
  output: string;
  /** What followed a line "== name". */
  sections: Record<string, string>;
  seconds: number;
}

// Nothing loads modules by itself in there: what overlay, bridges, veth and the packet filter's expressions need is named.
const MODULES = [
  "overlay",
  "bridge",
  "br_netfilter",
  "veth",
  "nf_tables",
  "nft_chain_nat",
  "nft_nat",
  "nft_masq",
  "nft_ct",
  "nft_fib_ipv4",
  "nft_fib_ipv6",
  "nft_fib_inet",
  "nf_conntrack_netlink",
];

/** A machine that emulates its processor takes its time where the host is busy; twenty seconds where it is not. */
export const BOOT_MS = 230_000;

const MARK = "jubako-vm-end";

let kernel: Kernel | string | undefined;

/** Why no machine can be had here; says so in the form that the test runner collects. */
export function machineLacks(): boolean {
  const missing = ["qemu-system-x86_64", "busybox", "ldd"].find((program) => !which(program));
  const reason = missing ? `${missing} not installed` : process.arch !== "x64" ? "the virtual machine is for x86-64" : undefined;
  if (!reason) kernel ??= findKernel();
  const why = reason ?? (typeof kernel === "string" ? kernel : undefined);
  if (why) console.log(`skip: ${why}`);
  return why !== undefined;
}

/** The shared objects that a program is linked with, at their own places. */
export function libraries(program: string): Record<string, Entry> {
  const listed = spawnSync("ldd", [program], { encoding: "utf8" }).stdout ?? "";
  const paths = [...listed.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1]!);
  return Object.fromEntries(paths.map((path) => [path.slice(1), { from: path }]));
}

function systemd(): Record<string, Entry> {
  const programs = systemdPrograms.flatMap((program) => [
    [program.slice(1), { from: program }] as const,
    ...Object.entries(libraries(program)),
  ]);
  return { ...Object.fromEntries(programs), ...systemdFiles };
}

/** dlopened, not linked. */
function seccompLibrary(): Record<string, Entry> {
  const path = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib64"].map((dir) => `${dir}/libseccomp.so.2`).find(existsSync);
  return path ? { "lib/x86_64-linux-gnu/libseccomp.so.2": { from: path } } : {};
}

// The first file system cannot be left by pivot_root (pivot_root(2)), so it is bound over itself and entered there.
const init = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/jubako/bin:/bin HOME=/root
mount --bind / /mnt
cd /mnt
mount --move . /
exec chroot . /bin/sh /init.2
`;

const runScript = `sh /script </dev/null 2>&1
status=$?
echo
echo ${MARK} $status
# What was written is still on its way through the serial line; to set what is set waits for that.
stty -F /dev/console onlcr
reboot -f
`;

const secondInit = (modules: string[], { systemd = false, hybrid = false }: Machine) => `
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts devpts /dev/pts -o ptmxmode=666
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t tmpfs lib /var/lib
${hybrid ? "" : "mount -t cgroup2 cgroup2 /sys/fs/cgroup"}
ip link set lo up
stty -opost 2>/dev/null </dev/console
${modules.map((name) => `insmod /lib/modules/${name}.ko || echo "${name} did not load"`).join("\n")}
cd /root
${systemd ? "exec /lib/systemd/systemd --log-target=console --log-level=warning --show-status=no" : runScript}
`;

export async function boot(machine: Machine): Promise<Outcome> {
  kernel ??= findKernel();
  if (typeof kernel === "string") throw new Error(kernel);
  const dir = mkdtempSync(join(tmpdir(), "jubako-vm-"));
  const began = performance.now();
  try {
    const executable = join(root, "dist/jubako");
    const modules = kernel.modules([...MODULES, ...(machine.modules ?? [])]);
    const busybox = which("busybox")!;
    const entries: Record<string, Entry> = {
      init: { mode: 0o755, data: init },
      "init.2": {
        data: secondInit(
          modules.map(({ name }) => name),
          machine,
        ),
      },
      "script.systemd": { data: runScript },
      script: { data: machine.script },
      "bin/busybox": { from: busybox },
      "jubako/jubako": { from: executable },
      "etc/passwd": { data: "root:x:0:0:root:/root:/bin/sh\n" },
      "etc/group": { data: "root:x:0:\n" },
      ...libraries(executable),
      ...libraries(busybox),
      ...seccompLibrary(),
      ...Object.fromEntries(modules.map(({ name, file }) => [`lib/modules/${name}.ko`, { from: file }])),
      ...Object.fromEntries(
        ["jubako", "jubakod", "jubako-containerd", "jubako-shim", "containerd-shim-jubako-v1", "jubako-runtime"].map((name) => [
          `jubako/bin/${name}`,
          // Some are launchers of the executable beside them.
          lstatSync(bin(name)).isSymbolicLink() ? { link: "../jubako" } : { from: bin(name) },
        ]),
      ),
      ...Object.fromEntries(["proc", "sys", "dev", "run", "tmp", "mnt", "root", "var/lib"].map((name) => [name, { directory: true }])),
      ...(machine.systemd ? systemd() : {}),
      ...machine.files,
    };
    const archive = join(dir, "initramfs");
    writeInitramfs(archive, entries);
    const { memoryMb = 1536, timeoutMs = BOOT_MS } = machine;
    const child = spawn(
      "qemu-system-x86_64",
      [
        ...(machine.whole ? pc(memoryMb, dir) : SMALL),
        ...["-accel", "tcg", "-cpu", "max"],
        ...["-m", String(memoryMb), "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio"],
        ...["-kernel", kernel.image, "-initrd", archive],
        "-append",
        `console=ttyS0 loglevel=1 reboot=t panic=-1 tsc=reliable ${machine.whole ? "" : "no_timer_check "}mitigations=off random.trust_cpu=on${machine.hybrid ? " systemd.unified_cgroup_hierarchy=0" : ""} ${machine.commandLine ?? ""}`,
      ],
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    const output = (await text(child, timeoutMs, machine.watch)).replaceAll("\r", "");
    const end = new RegExp(`^${MARK} (\\d+)$`, "m").exec(output);
    return {
      status: end ? Number(end[1]) : undefined,
      output,
      sections: sectionsOf(end ? output.slice(0, end.index) : output),
      seconds: (performance.now() - began) / 1000,
    };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

// Without ACPI the kernel finds its timers by itself; with it, it waits for one that never comes. One processor: others are told by ACPI.
const SMALL = ["-M", "microvm,acpi=off,pit=on,pic=on,rtc=on", "-smp", "1"];

function pc(memoryMb: number, dir: string): string[] {
  const disk = join(dir, "disk");
  writeFileSync(disk, "");
  truncateSync(disk, 64 << 20);
  const node = (n: number) => ["-object", `memory-backend-ram,id=m${n},size=${memoryMb / 2}M`, "-numa", `node,memdev=m${n},cpus=${n}`];
  return ["-M", "q35", "-smp", "2", ...node(0), ...node(1), "-drive", `file=${disk},format=raw,if=virtio`];
}

/** What the machine writes until it ends, or is ended. */
function text(child: ChildProcess, timeoutMs: number, watch?: (chunk: string) => void): Promise<string> {
  return new Promise((resolve, reject) => {
    let output = "";
    const take = (chunk: Buffer) => {
      output += chunk.toString();
      watch?.(chunk.toString());
    };
    child.stdout!.on("data", take);
    child.stderr!.on("data", take);
    const kill = () => child.kill("SIGKILL");
    const timer = setTimeout(() => {
      output += `\nthe machine was ended after ${timeoutMs / 1000} s\n`;
      kill();
    }, timeoutMs);
    process.once("exit", kill);
    const done = () => {
      clearTimeout(timer);
      process.off("exit", kill);
    };
    child.once("error", (error) => {
      done();
      reject(error);
    });
    child.once("close", () => {
      done();
      resolve(output);
    });
  });
}

function sectionsOf(output: string): Record<string, string> {
  const sections: Record<string, string> = {};
  for (const part of output.split(/^== /m).slice(1)) {
    const line = part.indexOf("\n");
    sections[part.slice(0, line).trim()] = part.slice(line + 1).trim();
  }
  return sections;
}

/** What the script said under a name, as it is or as lines of "key=value". */
export function readers(outcome: () => Outcome) {
  const said = (name: string): string => {
    const text = outcome().sections[name];
    if (text === undefined) throw new Error(`the machine did not come to "${name}":\n${outcome().output}`);
    return text;
  };
  const fields = (name: string): Record<string, string> =>
    Object.fromEntries(
      said(name)
        .split("\n")
        .map((line) => [line.split("=", 1)[0]!, line.slice(line.indexOf("=") + 1)]),
    );
  return { said, fields };
}
