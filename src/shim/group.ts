// A group of containers and the one shim process that holds them: where its state is, whether it lives, how it is started exactly once.
//
//   /run/jubako/shim/GROUP/lock       held (flock) while the group's shim is looked for, started or ended
//                         /sock       where it answers
//                         /pending/ID a `start` for ID was answered and its Create has not come yet: the shim must not end now
//                         /c/ID       its tasks (record.ts)
//                         /log        what the process says on standard error: defects only
import { createHash } from "node:crypto";
import { fstatSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { unavailable } from "../lib/errors.ts";
import { programCommand } from "../lib/program.ts";
import {
  binding,
  check,
  close,
  errno,
  O_APPEND,
  O_CREAT,
  O_PATH,
  O_RDWR,
  O_WRONLY,
  open,
  read,
  SYS,
  spawn,
  write,
} from "../linux/index.ts";
import { encodeFrame, REQUEST } from "./ttrpc/frame.ts";
import { connectUnix, listenUnix } from "./unix.ts";

export interface Group {
  /** Its state directory. */
  dir: string;
  socket: string;
  /** unix://… */
  address: string;
}

export interface GroupName {
  namespace: string;
  /** The manager's gRPC address: two managers never share a shim. */
  address: string;
  /** Only with JUBAKO_SHIM_GROUPING=none, where each container gets a shim of its own. */
  id?: string | undefined;
  /** Instead of /run/jubako/shim or what JUBAKO_SHIM_STATE says. */
  root?: string | undefined;
}

const LOCK_EX = 2;
const LOCK_NB = 4;
const LOCK_MS = 10_000;
/** A Create that has not come by then will not come. */
const PENDING_MS = 30_000;

export function groupOf(name: GroupName): Group {
  const root = name.root ?? process.env.JUBAKO_SHIM_STATE ?? "/run/jubako/shim";
  const own = process.env.JUBAKO_SHIM_GROUPING === "none" && name.id ? `\0${name.id}` : "";
  const hash = createHash("sha256").update(`${name.address}\0${name.namespace}${own}`).digest("hex").slice(0, 24);
  const dir = `${root}/${hash}`;
  return { dir, socket: `${dir}/sock`, address: `unix://${dir}/sock` };
}

/** The group's lock, or undefined where someone holds it. close() lets go. */
export function tryLock(group: Group): number | undefined {
  mkdirSync(`${group.dir}/pending`, { recursive: true, mode: 0o700 });
  const fd = open(`${group.dir}/lock`, O_RDWR | O_CREAT, 0o600);
  const result = binding.syscall(SYS.flock, fd, LOCK_EX | LOCK_NB);
  // A shim that ends removes its directory: the lock must be on the file that stands there now.
  if (result === 0 && fstatSync(fd).ino === statSync(`${group.dir}/lock`, { throwIfNoEntry: false })?.ino) return fd;
  close(fd);
  if (result < 0 && result !== -errno.EAGAIN) check(result, `flock ${group.dir}/lock`);
  return undefined;
}

export async function lock(group: Group): Promise<number> {
  const limit = Date.now() + LOCK_MS;
  for (let pause = 1; ; pause = Math.min(pause * 2, 20)) {
    const fd = tryLock(group);
    if (fd !== undefined) return fd;
    if (Date.now() > limit) throw unavailable(`the shim's lock ${group.dir}/lock is held for more than ${LOCK_MS / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

const field = (tag: number, text: string): Buffer => Buffer.concat([Buffer.from([tag, text.length]), Buffer.from(text)]);
/** A ttrpc request: containerd.task.v2.Task/Connect, whose answer does not matter. */
const PING = encodeFrame(1, REQUEST, 0, Buffer.concat([field(0x0a, "containerd.task.v2.Task"), field(0x12, "Connect")]));
const PING_MS = 5000;

/**
 * Whether a shim answers. A process that is being killed may still take connections for a moment, so only an answer counts; one that is slow with
 * it lives. Blocks the caller, which is a command.
 */
export function alive(group: Group): boolean {
  const fd = connectUnix(group.socket);
  if (fd === undefined) return false;
  try {
    if (write(fd, PING) !== PING.length) return true;
    const POLLIN = 1;
    const polled = new DataView(new ArrayBuffer(8));
    polled.setInt32(0, fd, true);
    polled.setInt16(4, POLLIN, true);
    const ready = binding.syscall(SYS.poll, polled.buffer as ArrayBuffer, 1, PING_MS);
    return ready <= 0 || (read(fd, new Uint8Array(1)) ?? 1) > 0;
  } catch {
    // reset, or closed before it was written: dead
    return false;
  } finally {
    close(fd);
  }
}

export function setPending(group: Group, id: string): void {
  writeFileSync(`${group.dir}/pending/${id}`, "");
}

export function clearPending(group: Group, id: string): void {
  rmSync(`${group.dir}/pending/${id}`, { force: true });
}

/** Whether any start still waits for its Create. Old marks are removed. */
export function anyPending(group: Group, ids: Iterable<string>): boolean {
  let any = false;
  for (const id of ids) {
    const file = `${group.dir}/pending/${id}`;
    const age = Date.now() - (statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0);
    if (age < PENDING_MS) any = true;
    else rmSync(file, { force: true });
  }
  return any;
}

export interface DaemonOptions {
  namespace: string;
  address: string;
  /** ttrpc address of the manager's Events service. */
  ttrpc?: string | undefined;
  debug?: boolean | undefined;
  /** Stays when empty, whatever Shutdown says. */
  keep?: boolean | undefined;
}

/** Starts the group's shim. The caller holds the lock, and no shim is alive. Its socket listens when this returns. */
export function startDaemon(group: Group, options: DaemonOptions): void {
  const listener = listenUnix(group.socket);
  const argv = programCommand("containerd-shim-jubako-v1");
  let executable = -1;
  let nothing = -1;
  let log = -1;
  try {
    executable = open(argv[0]!, O_PATH);
    nothing = open("/dev/null", O_RDWR);
    log = open(`${group.dir}/log`, O_WRONLY | O_CREAT | O_APPEND, 0o600);
    const flags = ["-namespace", options.namespace, "-address", options.address, "-state", group.dir];
    if (options.debug) flags.push("-debug");
    if (options.keep) flags.push("-keep");
    // A heap made for a small machine stays small; for a very small one, its collections fall into the middle of every third start.
    const extra = {
      BUN_JSC_forceRAMSize: String(1 << 30),
      TTRPC_ADDRESS: options.ttrpc ?? `${options.address}.ttrpc`,
    };
    const env = Object.entries({ ...process.env, ...extra }).map(([name, value]) => `${name}=${value}`);
    // No double fork: the caller, a command, ends at once.
    const { pidfd } = spawn({
      exe: executable,
      argv: [...argv, ...flags, "serve"],
      env,
      fds: [nothing, nothing, log, listener],
      setsid: true,
    });
    close(pidfd);
  } finally {
    for (const fd of [listener, executable, nothing, log]) close(fd);
  }
}

/** Adopts the score that containerd's shims have: one more than their manager's, so that the kernel prefers the shim's victims over the manager. */
export function adjustOomScore(): void {
  try {
    const parents = Number(readFileSync(`/proc/${process.ppid}/oom_score_adj`, "utf8"));
    writeFileSync("/proc/self/oom_score_adj", String(Math.min(parents + 1, 1000)));
  } catch {
    // without the privilege the score stays
  }
}
