// What the parts of a plan share: the tape they write to, and the few idioms of system calls that recur.
import { errno, SYS } from "../../linux/index.ts";
import { type Arg, type Block, createTape, type StepOptions, type Tape, type Word } from "../tape.ts";
import { AT_FDCWD, flags, named, O, RESOLVE } from "./constants.ts";

export interface Planner {
  tape: Tape;
  /** openat2(2) below `root` with RESOLVE_IN_ROOT: no path leads out of it, whatever the image's symlinks say. */
  openInRoot(root: Arg, path: string, open: number, store: Word, options?: StepOptions & { mode?: number; noSymlinks?: boolean }): void;
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

export function createPlanner(): Planner {
  const tape = createTape();
  const hows = new Map<string, Block>();
  const scratch = tape.word("fd");

  // struct open_how
  function how(open: number, mode: number, resolve: number): Block {
    const key = `${open},${mode},${resolve}`;
    let block = hows.get(key);
    if (!block) {
      const text = mode ? `, mode=0${mode.toString(8)}` : "";
      block = tape.structure([open, mode, resolve], `{${named(O, open).name}${text}, ${named(RESOLVE, resolve).name}}`);
      hows.set(key, block);
    }
    return block;
  }

  const planner: Planner = {
    tape,
    openInRoot(root, path, open, store, options = {}) {
      const { mode = 0, noSymlinks, ...step } = options;
      const resolve = RESOLVE.RESOLVE_IN_ROOT | RESOLVE.RESOLVE_NO_MAGICLINKS | (noSymlinks ? RESOLVE.RESOLVE_NO_SYMLINKS : 0);
      tape.step(SYS.openat2, [root, path, how(open | O.O_CLOEXEC, mode, resolve), 24], { retry: errno.EAGAIN, ...step, store });
    },
    open(path, open, store, options = {}) {
      const { at, ...step } = options;
      tape.step(SYS.openat, [at ?? AT_FDCWD, path, named(O, open | O.O_CLOEXEC)], { ...step, store });
    },
    close(fd) {
      tape.step(SYS.close, [fd], { ignore: "all" });
    },
    ensure(root, path, kind, store, why, options = {}) {
      const done = tape.label();
      const missing = tape.label();
      const symlinks = options.noSymlinks ? { noSymlinks: true } : {};
      planner.openInRoot(root, path, O.O_PATH, store, { why, ...symlinks, jump: { to: missing, on: [errno.ENOENT] } });
      tape.jump(done);
      tape.place(missing);
      const names = path.split("/").filter((name) => name !== "" && name !== ".");
      const parent = scratch;
      names.forEach((name, i) => {
        const last = i === names.length - 1;
        planner.openInRoot(root, `/${names.slice(0, i).join("/")}`, O.O_PATH | O.O_DIRECTORY, parent, symlinks);
        if (last && kind === "file") {
          tape.step(SYS.mknodat, [parent, name, { value: 0o100000 | (options.mode ?? 0o755), name: "S_IFREG|0755" }, 0], {
            ignore: [errno.EEXIST],
          });
        } else tape.step(SYS.mkdirat, [parent, name, { value: options.mode ?? 0o755, name: "0755" }], { ignore: [errno.EEXIST] });
        planner.close(parent);
      });
      planner.openInRoot(root, path, O.O_PATH, store, symlinks);
      tape.place(done);
    },
    writeFile(path, text, options = {}) {
      const { at, ...step } = options;
      const bytes = tape.text(text);
      const skip = tape.label();
      // Where failures are ignored, a file that is missing must not lead to a write to a stale descriptor.
      const open = step.ignore ? { ...step, jump: { to: skip, ...(step.ignore === "all" ? {} : { on: step.ignore }) } } : step;
      if (open.ignore) delete open.ignore;
      tape.step(SYS.openat, [at ?? AT_FDCWD, path, flags(O, "O_WRONLY", "O_CLOEXEC")], { ...open, store: scratch });
      tape.step(SYS.write, [scratch, bytes, Buffer.byteLength(text)], step.ignore ? { ignore: step.ignore } : {});
      planner.close(scratch);
      tape.place(skip);
    },
  };
  return planner;
}
