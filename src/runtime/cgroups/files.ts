// Small files of cgroup hierarchies.
import { Failure } from "../../lib/errors.ts";
import {
  AT_FDCWD,
  binding,
  close,
  existsSync,
  kill,
  mkdirSync,
  O_CLOEXEC,
  readdirSync,
  readFileSync,
  rmdirSync,
  SYS,
  SystemError,
  subdirectoriesOf,
  textOf,
  writeFileSync,
} from "../../linux/index.ts";
import type { CgroupWrite } from "./index.ts";

export function readText(file: string): string | undefined {
  // What is not there is asked for more often than what can't be read, and an exception costs more than the question.
  if (!existsSync(file)) return undefined;
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

/** Files that are read for each container, open; the last used last. */
const kept = new Map<string, number>();
const MOST_KEPT = 8;
const TEXT_ROOM = 4096;
let room: Uint8Array | undefined;

/** The same for a short file that is read again and again: most of what reading a cgroup's file costs is opening it. */
export function readAgain(file: string): string | undefined {
  room ??= new Uint8Array(TEXT_ROOM);
  for (let held = kept.get(file); ; held = undefined) {
    kept.delete(file);
    const fd = held ?? binding.syscall(SYS.openat, AT_FDCWD, file, O_CLOEXEC, 0);
    if (fd < 0) return undefined;
    const n = binding.syscall(SYS.pread64, fd, room, TEXT_ROOM, 0);
    if (n >= 0 && n < TEXT_ROOM) {
      kept.set(file, fd);
      for (const [oldest, old] of kept) {
        if (kept.size <= MOST_KEPT) break;
        kept.delete(oldest);
        close(old);
      }
      return textOf(room.subarray(0, n));
    }
    close(fd);
    // Of a cgroup that is gone; another one may have its name by now.
    if (held === undefined) return readText(file);
  }
}

/** "max" and what is not there are undefined. */
export function readNumber(file: string): number | undefined {
  const text = readText(file)?.trim();
  return text && /^-?\d+$/.test(text) ? Number(text) : undefined;
}

/** Lines of "key value". */
export function readKeyed(file: string): Record<string, number> {
  const keyed: Record<string, number> = {};
  for (const line of (readText(file) ?? "").split("\n")) {
    const space = line.indexOf(" ");
    if (space > 0) keyed[line.slice(0, space)] = Number(line.slice(space + 1));
  }
  return keyed;
}

export function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? "";
}

export function write({ file, value, why, ignore }: CgroupWrite): void {
  try {
    writeFileSync(file, value);
  } catch (error) {
    if (ignore === "all" || (error instanceof SystemError && ignore?.includes(error.errno))) return;
    throw new Failure("Unknown", `${why}: write ${JSON.stringify(value)} to ${file}: ${(error as Error).message}`, { cause: error });
  }
}

/**
 * Limits that hold each other (memory and its sum with swap, quota, period and burst) can be written in one order where they rise, in the other where
 * they fall: what is refused is tried again after the rest, as long as that helps. All or nothing, as runc does it: where one stays refused, the old ones are
 * written back. What is returned does that later.
 */
export function changeLimits(writes: readonly CgroupWrite[]): () => void {
  const old = writes.flatMap(oldValue).reverse();
  const undo = () => void writeAsFarAsPossible(old);
  const refusal = writeAsFarAsPossible(writes);
  if (refusal === undefined) return undo;
  undo();
  throw refusal;
}

/** What gives a file the content back that it has now; nothing for one that cannot be read. */
function oldValue({ file, value, why }: CgroupWrite): CgroupWrite[] {
  const text = readText(file)?.trim();
  if (text === undefined) return [];
  // An empty set of processors is written as an empty line; this one reads as more than is written.
  const whole = { file, value: /^oom_kill_disable (\d)/.exec(text)?.[1] ?? (text || "\n"), why };
  // Lines of files that have one for each device or interface are written one by one; those that say nothing are not shown.
  const key = /(rdma\.max|ifpriomap)$/.test(file) ? value.split(" ", 1)[0] : /^\d+:\d+(?= )/.exec(value)?.[0];
  if (key === undefined) return [whole];
  const line = text.split("\n").find((each) => each.startsWith(`${key} `));
  return [{ file, value: line ?? `${key} ${unset(file)}`, why }];
}

function unset(file: string): string {
  if (file.endsWith("/io.max")) return "rbps=max wbps=max riops=max wiops=max";
  if (file.endsWith("/rdma.max")) return "hca_handle=max hca_object=max";
  return /\/io\.(bfq\.)?weight$/.test(file) ? "default" : "0";
}

/** The first refusal, where some stay refused. */
function writeAsFarAsPossible(writes: readonly CgroupWrite[]): unknown {
  let left = writes;
  for (;;) {
    let refusal: unknown;
    const refused = left.filter((each) => {
      try {
        write(each);
        return false;
      } catch (error) {
        refusal ??= error;
        return true;
      }
    });
    if (refused.length === 0) return undefined;
    if (refused.length === left.length) return refusal;
    left = refused;
  }
}

/** As in the names of hugetlb's files: 2MB, 1GB. */
export function hugePageSizes(): string[] {
  let names: string[] = [];
  try {
    names = readdirSync("/sys/kernel/mm/hugepages");
  } catch {
    return [];
  }
  return names.flatMap((name) => {
    const kilobytes = Number(/^hugepages-(\d+)kB$/.exec(name)?.[1]);
    if (!kilobytes) return [];
    if (kilobytes >= 1 << 20) return [`${kilobytes >> 20}GB`];
    return [kilobytes >= 1024 ? `${kilobytes >> 10}MB` : `${kilobytes}KB`];
  });
}

/** One that is there is fine. */
export function makeCgroup(directory: string): void {
  try {
    mkdirSync(directory);
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw new Failure("Unknown", `unable to apply cgroup configuration: ${(error as Error).message}`);
  }
}

/** Every cgroup at or below `directory`, children first. */
export function tree(directory: string): string[] {
  const all: string[] = [];
  let names: string[] = [];
  try {
    names = subdirectoriesOf(directory);
  } catch {
    return all;
  }
  for (const name of names) all.push(...tree(`${directory}/${name}`));
  all.push(directory);
  return all;
}

export function pidsBelow(directory: string): number[] {
  const pids: number[] = [];
  for (const cgroup of tree(directory)) {
    for (const line of (readText(`${cgroup}/cgroup.procs`) ?? "").split("\n")) if (line) pids.push(Number(line));
  }
  return pids;
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Removes cgroups with what is below them; while processes are on their way out, again and again, for at most two seconds. */
export async function removeTrees(directories: string[], force: boolean, beforeKill: () => void): Promise<void> {
  let left = directories;
  let waited = 0;
  for (let wait = 1; ; wait = Math.min(wait * 2, 50)) {
    left = left.filter((directory) => !removeTree(directory));
    if (left.length === 0) return;
    const pids = new Set(left.flatMap(pidsBelow).filter((pid) => pid > 0));
    if (pids.size > 0) {
      if (!force) throw new Failure("FailedPrecondition", `cgroup ${left[0]} still holds processes ${[...pids].join(", ")}`);
      beforeKill();
      for (const pid of pids) kill(pid, 9);
    }
    waited += wait;
    if (waited > 2000) throw new Failure("Unknown", `cgroup ${left[0]} cannot be removed: it is still in use`);
    await pause(wait);
  }
}

function removeTree(directory: string): boolean {
  try {
    rmdirSync(directory);
    return true;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return true;
  }
  for (const cgroup of tree(directory)) {
    try {
      rmdirSync(cgroup);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") return false;
    }
  }
  return true;
}
