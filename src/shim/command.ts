// Runs a program to its end: a few system calls, no copy of this process.
import { close, EPOLLIN, O_NONBLOCK, O_PATH, O_RDONLY, open, pipe, read, reap, spawn, watch } from "../linux/index.ts";

export interface CommandResult {
  status: number;
  /** What it wrote on standard output and error, where these were not given; at most 1 MiB. */
  output: string;
}

const LIMIT = 1 << 20;

/** Pids of children that someone waits for: a subreaper must leave them alone. */
export const awaited = new Set<number>();

/**
 * The command line for a program that may be a script: a script is run by the shell, as execution by descriptor hides its path from its
 * interpreter (execveat(2), BUGS).
 */
export function commandLine(argv: string[]): string[] {
  const fd = open(argv[0]!, O_RDONLY);
  const start = new Uint8Array(2);
  try {
    read(fd, start);
  } finally {
    close(fd);
  }
  const script = start[0] === 0x23 && start[1] === 0x21;
  return script ? ["/bin/sh", "-c", 'exec "$0" "$@"', ...argv] : argv;
}

/** Starts `argv[0]` (an absolute path). `fds` are its 0, 1, 2, …; without them, 0 is closed and 1 and 2 are collected. */
export async function run(command: string[], options: { fds?: number[]; env?: string[] } = {}): Promise<CommandResult> {
  const argv = commandLine(command);
  const collect = options.fds ? undefined : pipe(O_NONBLOCK);
  const exe = open(argv[0]!, O_PATH);
  const nothing = open("/dev/null", O_RDONLY);
  let child: { pid: number; pidfd: number };
  try {
    child = spawn({ exe, argv, env: options.env ?? environment(), fds: options.fds ?? [nothing, collect!.write, collect!.write] });
  } catch (error) {
    if (collect) close(collect.read);
    throw error;
  } finally {
    close(exe);
    close(nothing);
    if (collect) close(collect.write);
  }
  awaited.add(child.pid);
  const status = exitOf(child.pidfd).finally(() => awaited.delete(child.pid));
  const output = collect ? await drain(collect.read) : "";
  return { status: await status, output };
}

export function environment(): string[] {
  return Object.entries(process.env).map(([name, value]) => `${name}=${value}`);
}

/** Resolves with the exit status of a child; closes the pidfd. */
export function exitOf(pidfd: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const watching = watch(pidfd, EPOLLIN, () => {
      watching.close();
      try {
        resolve(reap(pidfd)?.status ?? 255);
      } catch (error) {
        reject(error);
      } finally {
        close(pidfd);
      }
    });
  });
}

function drain(fd: number): Promise<string> {
  return new Promise((resolve) => {
    const parts: Buffer[] = [];
    let have = 0;
    const watching = watch(fd, EPOLLIN, () => {
      const buffer = Buffer.allocUnsafe(16384);
      let n: number | undefined;
      try {
        n = read(fd, buffer);
      } catch {
        n = 0;
      }
      if (n === undefined) return;
      if (n > 0 && have < LIMIT) {
        parts.push(buffer.subarray(0, n));
        have += n;
      }
      if (n > 0) return;
      watching.close();
      close(fd);
      resolve(Buffer.concat(parts).toString());
    });
  });
}
