// Standard input, output and error as a task request names them, opened for the process. Bytes never pass through the shim (a terminal's do):
// the process gets the FIFO itself, and the keeper holds the other side, so that output waits in the kernel while nobody reads,
// and no input ends before somebody has come to write it (input-end.ts).
//
//   ""                    /dev/null
//   /path, fifo:///path   a FIFO (or a plain file, which is appended to)
//   file:///path          a file, made with its directories, appended to
//   binary:///path?k=v    a logger: containerd's protocol (core/runtime/v2/README.md, "Logging"): it reads descriptors 3 and 4, and closes 5 when ready
import { fstatSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { failedPrecondition, invalidArgument, messageOf } from "../lib/errors.ts";
import {
  binding,
  check,
  close,
  EPOLLIN,
  O_APPEND,
  O_CREAT,
  O_NONBLOCK,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  open,
  pipe,
  read,
  SYS,
  spawn,
  watch,
} from "../linux/index.ts";
import type { ProcessIo } from "../runtime/face.ts";
import { awaited, commandLine, exitOf } from "./command.ts";
import { type InputEnd, watchInputEnd } from "./input-end.ts";

export interface Stdio {
  stdin: string;
  stdout: string;
  stderr: string;
  terminal: boolean;
}

export interface OpenStdio {
  io: ProcessIo;
  /** With a terminal, the sides that the shim copies from and to; -1: none. Non-blocking. They are the terminal copier's to close. */
  input: number;
  output: number;
  /** Of standard input that ends with its writer. */
  inputEnd: InputEnd | undefined;
  /** Closes what was opened for the process; called once the runtime has it. */
  close(): void;
  /** Closes `input`, `output` and `inputEnd`, where nobody came to own them. */
  abandon(): void;
}

interface Output {
  /** For the writer. */
  fd: number;
  /** The FIFO's read side, -1 where it is no FIFO. */
  hold: number;
}

const F_GETFL = 3;
const F_SETFL = 4;

function blocking(fd: number): void {
  const flags = check(binding.syscall(SYS.fcntl, fd, F_GETFL, 0), "fcntl F_GETFL");
  check(binding.syscall(SYS.fcntl, fd, F_SETFL, flags & ~O_NONBLOCK), "fcntl F_SETFL");
}

function parse(uri: string): { scheme: string; path: string; url: URL | undefined } {
  if (uri.startsWith("/")) return { scheme: "fifo", path: uri, url: undefined };
  let url: URL;
  try {
    url = new URL(uri);
  } catch {
    throw invalidArgument(`standard stream ${JSON.stringify(uri)} is neither a path nor a URI`);
  }
  return { scheme: url.protocol.slice(0, -1), path: decodeURIComponent(url.pathname), url };
}

function openOutput(uri: string, nonblocking: number): Output {
  const { scheme, path } = parse(uri);
  if (scheme === "file") {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    return { fd: open(path, O_WRONLY | O_CREAT | O_APPEND, 0o644), hold: -1 };
  }
  if (scheme !== "fifo") throw invalidArgument(`standard stream ${JSON.stringify(uri)}: the scheme must be fifo, file or binary`);
  // The read side first: then neither open blocks.
  const hold = open(path, O_RDONLY | O_NONBLOCK);
  try {
    if (fstatSync(hold).isFIFO()) return { fd: open(path, O_WRONLY | nonblocking), hold };
    const fd = open(path, O_WRONLY | O_APPEND);
    close(hold);
    return { fd, hold: -1 };
  } catch (error) {
    close(hold);
    throw error;
  }
}

/** Opens what `stdio` names. `names` go to a logger's environment; `keepInput`: standard input ends when it is told to, not with its writer. */
export async function openStdio(stdio: Stdio, names: { id: string; namespace: string }, keepInput: boolean): Promise<OpenStdio> {
  const opened: number[] = [];
  const keep = (fd: number): number => {
    if (fd >= 0) opened.push(fd);
    return fd;
  };
  const io: ProcessIo = { stdin: -1, stdout: -1, stderr: -1, terminal: stdio.terminal, hold: [], holdStdin: -1 };
  let input = -1;
  let output = -1;
  let inputEnd: InputEnd | undefined;
  try {
    if (stdio.stdin) {
      const { scheme, path } = parse(stdio.stdin);
      if (scheme !== "fifo") throw invalidArgument(`standard input ${JSON.stringify(stdio.stdin)}: the scheme must be fifo`);
      // A terminal's is the reader's to end, by a character.
      if (!keepInput && !stdio.terminal) inputEnd = watchInputEnd(path);
      const fd = keep(open(path, O_RDONLY | O_NONBLOCK));
      io.holdStdin = keep(open(path, O_WRONLY | O_NONBLOCK));
      if (stdio.terminal) {
        input = fd;
        io.hold.push(keep(open(path, O_RDONLY | O_NONBLOCK)));
      } else {
        blocking(fd);
        io.stdin = fd;
      }
    }
    if (stdio.stdout.startsWith("binary:")) {
      const logger = await startLogger(stdio.stdout, names);
      keep(logger.stdout);
      keep(logger.stderr);
      if (stdio.terminal) output = logger.stdout;
      else {
        io.stdout = logger.stdout;
        io.stderr = logger.stderr;
      }
    } else {
      const outputs = new Map<string, Output>();
      for (const name of stdio.terminal ? (["stdout"] as const) : (["stdout", "stderr"] as const)) {
        const uri = stdio[name];
        if (!uri) continue;
        let out = outputs.get(uri);
        if (!out) {
          out = openOutput(uri, stdio.terminal ? O_NONBLOCK : 0);
          outputs.set(uri, out);
          keep(out.fd);
          if (keep(out.hold) >= 0) io.hold.push(out.hold);
        }
        if (stdio.terminal) output = out.fd;
        else io[name] = out.fd;
      }
    }
  } catch (error) {
    inputEnd?.close();
    for (const fd of opened) close(fd);
    throw error;
  }
  return {
    io,
    input,
    output,
    inputEnd,
    close() {
      for (const fd of opened.splice(0)) if (fd !== input && fd !== output) close(fd);
    },
    abandon() {
      inputEnd?.close();
      close(input);
      close(output);
    },
  };
}

const READY_MS = 10_000;

/** Starts a logger; its pipes' write sides. It lives until these are closed, whatever becomes of the shim. */
async function startLogger(uri: string, names: { id: string; namespace: string }): Promise<{ stdout: number; stderr: number }> {
  const { path, url } = parse(uri);
  const argv = [path];
  for (const [key, value] of url!.searchParams) argv.push(key, ...(value ? [value] : []));
  const out = pipe();
  const err = pipe();
  const ready = pipe(O_NONBLOCK);
  let exe = -1;
  let nothing = -1;
  try {
    blocking(ready.write);
    const command = commandLine(argv);
    exe = open(command[0]!, O_PATH);
    nothing = open("/dev/null", O_RDWR);
    const { pid, pidfd } = spawn({
      exe,
      argv: command,
      env: [`CONTAINER_ID=${names.id}`, `CONTAINER_NAMESPACE=${names.namespace}`],
      fds: [nothing, nothing, nothing, out.read, err.read, ready.write],
    });
    awaited.add(pid);
    void exitOf(pidfd).finally(() => awaited.delete(pid));
    close(ready.write);
    ready.write = -1;
    await readable(ready.read, READY_MS, `logger ${path} was not ready within ${READY_MS / 1000} s`);
    return { stdout: out.write, stderr: err.write };
  } catch (error) {
    close(out.write);
    close(err.write);
    throw failedPrecondition(`start logging binary ${path}: ${messageOf(error)}`, error);
  } finally {
    for (const fd of [exe, nothing, out.read, err.read, ready.read, ready.write]) close(fd);
  }
}

/** Resolves when a byte or the end arrives. */
function readable(fd: number, ms: number, otherwise: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      watching.close();
      reject(new Error(otherwise));
    }, ms);
    const watching = watch(fd, EPOLLIN, () => {
      if (read(fd, new Uint8Array(1)) === undefined) return;
      clearTimeout(timer);
      watching.close();
      resolve();
    });
  });
}
