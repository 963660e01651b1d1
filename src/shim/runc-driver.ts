// A Runtime that drives a program with runc's command line (runc, crun, youki, runsc): so the shim works over any OCI runtime. The program leaves
// the container's processes to the shim, which is their subreaper. What it can't give: a keeper. If the shim dies, FIFOs lose their second holder,
// terminals hang up, and the exit status of what ends before a new shim adopts the container is unknown (255).
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Failure, messageOf, unimplemented } from "../lib/errors.ts";
import { binding, check, close, EPOLLIN, kill, O_RDWR, open, pidfdOpen, pidfdSignal, reap, SYS, watch } from "../linux/index.ts";
import type { Resources, Process as SpecProcess } from "../oci/runtime-spec.ts";
import type { CreateOptions, ExitRecord, ProcessIo, RunningProcess, Runtime, RuntimeContainer } from "../runtime/face.ts";
import { cgroupOfProcess } from "../runtime/index.ts";
import { awaited, run } from "./command.ts";
import { consoleSocket } from "./console-socket.ts";
import { mountAll, unmountAll } from "./mount.ts";

export interface RuncOptions {
  /** Absolute path of the program. */
  binary: string;
  /** Its --root. */
  root: string;
  systemdCgroup?: boolean;
  noPivot?: boolean;
  noNewKeyring?: boolean;
}

const PR_SET_CHILD_SUBREAPER = 36;

export function runcRuntime(options: RuncOptions): Runtime {
  check(binding.syscall(SYS.prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl PR_SET_CHILD_SUBREAPER");
  return {
    create: (create) => createContainer(options, create),
    async restore() {
      throw noCheckpoints(options);
    },
    adopt: (id, state) => adoptContainer(options, id, state),
  };
}

/** Runs the program; its error is the last message of its log. */
async function runc(options: RuncOptions, state: string, args: string[], fds?: number[]): Promise<string> {
  const log = `${state}/log.json`;
  rmSync(log, { force: true });
  const argv = [
    options.binary,
    "--root",
    options.root,
    "--log",
    log,
    "--log-format",
    "json",
    ...(options.systemdCgroup ? ["--systemd-cgroup"] : []),
    ...args,
  ];
  const result = await run(argv, fds ? { fds } : {});
  if (result.status === 0) return result.output;
  let message = result.output.trim();
  try {
    for (const line of readFileSync(log, "utf8").split("\n")) {
      if (!line) continue;
      const entry = JSON.parse(line) as { level?: string; msg?: string };
      if (entry.level === "error" && entry.msg) message = entry.msg;
    }
  } catch {
    // no log, or not JSON: what it printed must do
  }
  throw new Failure("Unknown", message || `${options.binary} ${args[0]} exited with status ${result.status}`);
}

const F_DUPFD_CLOEXEC = 1030;
const duplicate = (fd: number): number =>
  fd < 0 ? -1 : check(binding.syscall(SYS.fcntl, fd, F_DUPFD_CLOEXEC, 0), "fcntl F_DUPFD_CLOEXEC");

/** Descriptors for the child: /dev/null where the process has none. */
async function withIo<T>(io: ProcessIo, use: (fds: number[]) => Promise<T>): Promise<T> {
  const nothing = open("/dev/null", O_RDWR);
  try {
    return await use([io.stdin, io.stdout, io.stderr].map((fd) => (fd < 0 || io.terminal ? nothing : fd)));
  } finally {
    close(nothing);
  }
}

interface Held {
  release(): void;
  closeStdin(): void;
}

function holdDescriptors(io: ProcessIo): Held {
  const held = io.hold.map(duplicate);
  let stdin = duplicate(io.holdStdin);
  const closeStdin = (): void => {
    close(stdin);
    stdin = -1;
  };
  return {
    closeStdin,
    release() {
      closeStdin();
      for (const fd of held.splice(0)) close(fd);
    },
  };
}

/** A process that the shim reaps, or, adopted, can only watch. */
function watchProcess(pid: number, child: boolean): { exited: Promise<ExitRecord>; signal(signal: number): boolean } {
  const pidfd = pidfdOpen(pid);
  let open = true;
  const exited = new Promise<ExitRecord>((resolve) => {
    const watching = watch(pidfd, EPOLLIN, async () => {
      watching.close();
      const at = Date.now();
      let status: number | undefined;
      if (child) status = reap(pidfd)?.status;
      else status = await strangersStatus(pidfd);
      open = false;
      close(pidfd);
      reapOrphans();
      resolve({ status: status ?? 255, at });
    });
  });
  return { exited, signal: (signal) => open && pidfdSignal(pidfd, signal) };
}

const PIDFD_GET_INFO = 0xc0000000 + (64 << 16) + (0xff << 8) + 11;
const PIDFD_INFO_EXIT = 8n;

/** PIDFD_GET_INFO of an ended process that is not our child (Linux 6.15): its status, if the kernel tells. */
function exitStatusOf(pidfd: number): number | undefined {
  const info = new DataView(new ArrayBuffer(64));
  info.setBigUint64(0, PIDFD_INFO_EXIT, true);
  if (binding.syscall(SYS.ioctl, pidfd, PIDFD_GET_INFO, info.buffer as ArrayBuffer) < 0) return undefined;
  if ((info.getBigUint64(0, true) & PIDFD_INFO_EXIT) === 0n) return undefined;
  const raw = info.getInt32(60, true);
  return (raw & 0x7f) === 0 ? (raw >> 8) & 0xff : 128 + (raw & 0x7f);
}

/** The kernel tells a stranger once the parent has reaped the process, which takes a moment. */
async function strangersStatus(pidfd: number): Promise<number | undefined> {
  for (let tries = 0; tries < 50; tries++) {
    const status = exitStatusOf(pidfd);
    if (status !== undefined) return status;
    await new Promise((next) => setTimeout(next, 2));
  }
  return undefined;
}

/** Ends zombies that fell to the subreaper and that nobody waits for. */
function reapOrphans(): void {
  for (const thread of readdirSync("/proc/self/task")) {
    let children: string;
    try {
      children = readFileSync(`/proc/self/task/${thread}/children`, "utf8");
    } catch {
      continue;
    }
    for (const pid of children.split(" ").filter(Boolean).map(Number))
      if (!awaited.has(pid) && isZombie(pid)) binding.syscall(SYS.wait4, pid, null, 1, null);
  }
}

function isZombie(pid: number): boolean {
  try {
    return /^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

function resizeTerminal(master: number, columns: number, rows: number): void {
  const TIOCSWINSZ = 0x5414;
  check(binding.syscall(SYS.ioctl, master, TIOCSWINSZ, new Uint8Array(Uint16Array.from([rows, columns, 0, 0]).buffer)), "ioctl TIOCSWINSZ");
}

/** `begin` makes the process (now, or at start for an exec) and tells its pid. */
function runningProcess(
  io: ProcessIo,
  initial: { pid: number; master: number } | undefined,
  startProcess: () => Promise<{ pid: number; master: number } | undefined>,
  child = true,
): RunningProcess {
  const held = holdDescriptors(io);
  let pid = 0;
  let master = -1;
  let watched: ReturnType<typeof watchProcess> | undefined;
  let settle: (record: ExitRecord) => void = () => {};
  const exited = new Promise<ExitRecord>((resolve) => {
    settle = resolve;
  });
  const begun = (made: { pid: number; master: number }): void => {
    pid = made.pid;
    master = made.master;
    awaited.add(pid);
    watched = watchProcess(pid, child);
    void watched.exited.then((record) => {
      awaited.delete(pid);
      settle(record);
    });
  };
  if (initial) begun(initial);
  return {
    get pid() {
      return pid;
    },
    keeper: process.pid,
    get terminal() {
      return master < 0 ? undefined : master;
    },
    async start() {
      const made = await startProcess();
      if (made) begun(made);
    },
    exited,
    signal: (signal) => watched?.signal(signal) ?? false,
    resize(columns, rows) {
      if (master >= 0) resizeTerminal(master, columns, rows);
    },
    closeStdin: held.closeStdin,
    release() {
      held.release();
      close(master);
      master = -1;
    },
  };
}

let sockets = 0;

/** create and exec: both take a console socket where there is a terminal, and write a pid file. */
async function launch(
  options: RuncOptions,
  state: string,
  io: ProcessIo,
  args: (extra: string[]) => string[],
): Promise<{ pid: number; master: number }> {
  const pidFile = `${state}/pid.${sockets++}`;
  const socket = io.terminal ? consoleSocket(state, `tty.${sockets}`) : undefined;
  try {
    const extra = ["--pid-file", pidFile, ...(socket ? ["--console-socket", socket.path] : [])];
    await withIo(io, (fds) => runc(options, state, args(extra), fds));
    const pid = Number(readFileSync(pidFile, "utf8"));
    return { pid, master: socket ? await socket.master : -1 };
  } finally {
    socket?.close();
    rmSync(pidFile, { force: true });
  }
}

interface Saved {
  bundle: string;
  pid: number;
  mounted: boolean;
}

/** CRIU has to be told of FIFOs of the host's as of files from outside, and runc's command line has no way to say so. */
const noCheckpoints = ({ binary }: RuncOptions) =>
  unimplemented(`checkpoints of containers that are made by the program ${binary}: only the built-in runtime has them`);

async function createContainer(options: RuncOptions, create: CreateOptions): Promise<RuntimeContainer> {
  const { id, bundle, state, io } = create;
  mkdirSync(state, { recursive: true, mode: 0o700 });
  mkdirSync(options.root, { recursive: true, mode: 0o711 });
  const rootfs = `${bundle}/rootfs`;
  try {
    if (create.rootfs.length > 0) {
      mkdirSync(rootfs, { recursive: true, mode: 0o711 });
      mountAll(create.rootfs, rootfs);
    }
    const flags = [...(options.noPivot ? ["--no-pivot"] : []), ...(options.noNewKeyring ? ["--no-new-keyring"] : [])];
    const made = await launch(options, state, io, (extra) => ["create", "--bundle", bundle, ...flags, ...extra, id]);
    const saved: Saved = { bundle, pid: made.pid, mounted: create.rootfs.length > 0 };
    writeFileSync(`${state}/runc.json`, JSON.stringify(saved));
    const init = runningProcess(io, made, async () => {
      await runc(options, state, ["start", id]);
      return undefined;
    });
    return await container(options, id, state, saved, init);
  } catch (error) {
    if (create.rootfs.length > 0) unmountAll(rootfs);
    rmSync(state, { recursive: true, force: true });
    throw error;
  }
}

async function adoptContainer(options: RuncOptions, id: string, state: string): ReturnType<Runtime["adopt"]> {
  let saved: Saved;
  try {
    saved = JSON.parse(readFileSync(`${state}/runc.json`, "utf8")) as Saved;
  } catch {
    return undefined;
  }
  const io: ProcessIo = { stdin: -1, stdout: -1, stderr: -1, terminal: false, hold: [], holdStdin: -1 };
  let init: RunningProcess;
  try {
    const started = async () => {
      await runc(options, state, ["start", id]).catch((error) => {
        if (!messageOf(error).includes("running")) throw error;
      });
      return undefined;
    };
    init = runningProcess(io, { pid: saved.pid, master: -1 }, started, false);
  } catch {
    // It ended while no shim lived: what is left is cleaned up, and the caller declares it dead.
    await runc(options, state, ["delete", "--force", id]).catch(() => {});
    if (saved.mounted) unmountAll(`${saved.bundle}/rootfs`);
    rmSync(state, { recursive: true, force: true });
    return undefined;
  }
  return { container: await container(options, id, state, saved, init), execs: new Map() };
}

async function container(options: RuncOptions, id: string, state: string, saved: Saved, init: RunningProcess): Promise<RuntimeContainer> {
  const command = (...args: string[]) => runc(options, state, args);
  const cgroup = await cgroupOfProcess(saved.pid);
  return {
    id,
    init,
    async exec({ process: spec, io }: { execId: string; process: SpecProcess; io: ProcessIo }) {
      // Descriptors are the caller's only until this returns, and the process starts later.
      const own: ProcessIo = { ...io, stdin: duplicate(io.stdin), stdout: duplicate(io.stdout), stderr: duplicate(io.stderr) };
      return runningProcess(io, undefined, async () => {
        const file = `${state}/process.${sockets++}.json`;
        writeFileSync(file, JSON.stringify(spec));
        try {
          return await launch(options, state, own, (extra) => ["exec", "--process", file, "--detach", ...extra, id]);
        } finally {
          rmSync(file, { force: true });
          for (const fd of [own.stdin, own.stdout, own.stderr]) close(fd);
        }
      });
    },
    pids: () => cgroup.pids(),
    killAll(signal) {
      for (const pid of cgroup.pids()) kill(pid, signal);
    },
    async pause() {
      await command("pause", id);
    },
    async resume() {
      await command("resume", id);
    },
    async update(resources: Resources) {
      const file = `${state}/resources.json`;
      writeFileSync(file, JSON.stringify(resources));
      await command("update", "--resources", file, id);
    },
    async checkpoint() {
      throw noCheckpoints(options);
    },
    stats: () => cgroup.stats(),
    onOom(callback) {
      try {
        return cgroup.onOom(callback);
      } catch {
        // no memory controller where it is: nothing to hear
        return () => {};
      }
    },
    async delete(force) {
      await command("delete", ...(force ? ["--force"] : []), id).catch((error) => {
        if (!force && !messageOf(error).includes("does not exist")) throw error;
      });
      if (saved.mounted) unmountAll(`${saved.bundle}/rootfs`);
      rmSync(state, { recursive: true, force: true });
    },
  };
}
