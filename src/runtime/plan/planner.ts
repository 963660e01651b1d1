// What the parts of a plan share: the tape they write to, and the few idioms of system calls that recur.
import { errno, SYS, utf8 } from "../../linux/index.ts";
import { type Arg, type Block, createTape, type Named, REPORT_FD, type StepOptions, type Tape, type Word } from "../tape.ts";
import { AT_FDCWD, named, O, RESOLVE } from "./constants.ts";
import { FD, REPORT } from "./layout.ts";

export interface OpenOptions {
  why?: string | undefined;
  jump?: StepOptions["jump"];
  ignore?: StepOptions["ignore"];
  mode?: number;
  noSymlinks?: boolean;
}

/** A place behind a symbolic link to nothing, which the process asks its maker for: steps have no way to follow it by themselves. */
export interface Missing {
  path: string;
  kind: "directory" | "file";
}

export interface Planner {
  tape: Tape;
  /** What reports of the kind `missing` number. */
  missing: Missing[];
  /** Where file systems were mounted that begin empty, or with what the kernel shows: no link of an image is in them. */
  fresh: string[];
  /** openat2(2) below `root` with RESOLVE_IN_ROOT: no path leads out of it, whatever the image's symlinks say. */
  openInRoot(root: Arg, path: string, open: number, store: Word, options?: OpenOptions): void;
  /** open(2) of a host's path. */
  open(path: Arg, open: number, store: Word, options?: StepOptions & { at?: Arg }): void;
  close(fd: Word): void;
  /** Makes `path` below `root` where it is missing: a directory, or an empty file; opens it with O_PATH. */
  ensure(
    root: Arg,
    path: string,
    kind: "directory" | "file",
    store: Word,
    why: string,
    options?: { noSymlinks?: boolean; mode?: number },
  ): void;
  /** Writes a whole file by path or by descriptor. */
  writeFile(path: string, text: string, options?: StepOptions & { at?: Arg }): void;
}

const WRITE_ONLY = named(O, O.O_WRONLY | O.O_CLOEXEC);
const IN_ROOT = RESOLVE.RESOLVE_IN_ROOT | RESOLVE.RESOLVE_NO_MAGICLINKS;
const IGNORE: StepOptions = { ignore: "all" };
const IGNORE_EXISTING: StepOptions = { ignore: [errno.EEXIST] };
const MISSING = [errno.ENOENT];

export function createPlanner(): Planner {
  const tape = createTape();
  const hows = new Map<number, Block>();
  // Directories below each root that are there once the tape got this far.
  const present = new Map<Arg, Set<string>>();
  const scratch = tape.word("fd");

  // struct open_how
  function how(open: number, mode: number, resolve: number): Block {
    const key = (open * 0x1000 + mode) * 0x100 + resolve;
    let block = hows.get(key);
    if (!block) {
      const text = mode ? `, mode=0${mode.toString(8)}` : "";
      block = tape.structure([open, mode, resolve], `{${named(O, open).name}${text}, ${named(RESOLVE, resolve).name}}`);
      hows.set(key, block);
    }
    return block;
  }

  const missing: Missing[] = [];

  const planner: Planner = {
    tape,
    missing,
    fresh: [],
    openInRoot(root, path, open, store, options = {}) {
      const resolve = options.noSymlinks ? IN_ROOT | RESOLVE.RESOLVE_NO_SYMLINKS : IN_ROOT;
      const { why, jump, ignore } = options;
      tape.step(SYS.openat2, [root, path, how(open | O.O_CLOEXEC, options.mode ?? 0, resolve), 24], {
        why,
        jump,
        ignore,
        retry: errno.EAGAIN,
        store,
      });
    },
    open(path, open, store, options = {}) {
      const { why, jump, ignore } = options;
      tape.step(SYS.openat, [options.at ?? AT_FDCWD, path, named(O, open | O.O_CLOEXEC)], { why, jump, ignore, store });
    },
    close(fd) {
      tape.step(SYS.close, [fd], IGNORE);
    },
    ensure(root, path, kind, store, why, options = {}) {
      const done = tape.label();
      const absent = tape.label();
      const { noSymlinks = false, mode = 0o755 } = options;
      const dangling = tape.label();
      const mayDangle = !noSymlinks && !planner.fresh.some((place) => path.startsWith(place));
      const behindLink = mayDangle ? { to: dangling, on: MISSING } : undefined;
      const known = present.get(root) ?? new Set(["/"]);
      present.set(root, known);
      planner.openInRoot(root, path, O.O_PATH, store, { why, noSymlinks, jump: { to: absent, on: MISSING } });
      tape.jump(done);
      tape.place(absent);
      const names = path.split("/").filter((name) => name !== "" && name !== ".");
      let parent = "/";
      names.forEach((name, i) => {
        const full = parent === "/" ? `/${name}` : `${parent}/${name}`;
        if (!known.has(full)) {
          const file = kind === "file" && i === names.length - 1;
          planner.openInRoot(root, parent, O.O_PATH | O.O_DIRECTORY, scratch, { noSymlinks, jump: behindLink });
          if (file) tape.step(SYS.mknodat, [scratch, name, 0o100000 | mode, 0], IGNORE_EXISTING);
          else tape.step(SYS.mkdirat, [scratch, name, mode], IGNORE_EXISTING);
          planner.close(scratch);
          if (!file) known.add(full);
        }
        parent = full;
      });
      planner.openInRoot(root, path, O.O_PATH, store, { noSymlinks, jump: behindLink });
      if (mayDangle) {
        tape.jump(done);
        tape.place(dangling);
        const report = tape.bytes(new Uint8Array(Uint32Array.of(REPORT.missing, missing.length, 0, 0).buffer), `{missing ${path}}`);
        missing.push({ path, kind });
        tape.compute("ADD", root, 0, tape.wordAt(report, 8, 8, "{missing}.root"));
        tape.step(SYS.write, [{ value: REPORT_FD, name: "report" }, report, REPORT.size]);
        waitForMaker(planner);
        planner.openInRoot(root, path, O.O_PATH, store);
      }
      tape.place(done);
    },
    writeFile(path, text, options = {}) {
      const { at, why, ignore } = options;
      const skip = tape.label();
      // Where failures are ignored, a file that is missing must not lead to a write to a stale descriptor.
      const jump = ignore === undefined ? undefined : ignore === "all" ? { to: skip } : { to: skip, on: ignore };
      tape.step(SYS.openat, [at ?? AT_FDCWD, path, WRITE_ONLY], { why, jump, store: scratch });
      tape.step(SYS.write, [scratch, text, utf8(text).length], { ignore });
      planner.close(scratch);
      tape.place(skip);
    },
  };
  return planner;
}

/** Opens /proc/PID. */
export function openProcess({ tape, open }: Planner, pid: Word, why: string): Word {
  const path = tape.bytes(utf8(`/proc/${"\0".repeat(24)}`), "/proc/PID");
  const directory = tape.word("proc_pid");
  tape.decimal(pid, tape.within(path, 6, "/proc/PID[6]"));
  open(path, O.O_PATH | O.O_DIRECTORY, directory, { why });
  return directory;
}

/** Waits for a byte of the process' maker. A maker that is gone leaves a process that nobody would ever start: it ends. */
export function waitForMaker({ tape }: Planner, why?: string): void {
  const known = tape.label();
  const count = tape.word("count");
  const maker: Arg = { value: FD.maker, name: "maker" };
  tape.step(SYS.read, [maker, tape.room(8, "byte"), 1], { why, retry: errno.EINTR, store: count });
  tape.when(count, "NE", 0, known);
  tape.step(SYS.exit_group, [1], { why: "end: its maker is gone" });
  tape.place(known);
}

/** Waits until the process' parent says at the event `said` that its part is done; ends where nobody is there any more who would end a process left behind. */
export function waitForParent({ tape }: Planner, said: Named, why: string): void {
  const done = tape.label();
  // struct pollfd {int fd; short events, revents}[2]: a maker says nothing before the process has asked him.
  const polled = tape.bytes(new Uint8Array(new Int32Array([Number(said.value), 1, FD.maker, 1]).buffer), `{${said.name}, maker}`);
  tape.step(SYS.ppoll, [polled, 2, 0, 0, 0], { why, retry: errno.EINTR });
  tape.when(tape.wordAt(polled, 4, 4, `${said.name}.events`), "NE", 1, done);
  tape.step(SYS.exit_group, [1], { why: "end: its maker is gone" });
  tape.place(done);
}
