// What a process holds of its own executable. The kernel maps whole neighbourhoods around each page that start-up touches, 35 MB of a Bun program;
// most of it is never run again, yet counts as the process's memory.
import { binding } from "./binding.ts";
import { readFileSync, readlinkSync } from "./files.ts";
import { SYS } from "./sys.ts";

const MADV_DONTNEED = 4;

/**
 * Lets go of the executable's pages that are as the file has them (madvise(2)): what is needed again comes back from the page cache, a minor fault for
 * each 64 KB. Only mappings without a page of their own are touched: a relocated page would be lost. Answers the bytes let go; a millisecond.
 */
export function releaseExecutable(): number {
  const own = readlinkSync("/proc/self/exe");
  let released = 0;
  let start = 0;
  let end = 0;
  let resident = 0;
  for (const line of readFileSync("/proc/self/smaps", "utf8").split("\n")) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ \S+\s+(.*)$/.exec(line);
    if (head) {
      const mine = head[3] === own || head[3] === `${own} (deleted)`;
      start = mine ? Number.parseInt(head[1]!, 16) : 0;
      end = Number.parseInt(head[2]!, 16);
    } else if (/^[0-9a-f]+-/.test(line)) start = 0;
    else if (start === 0) continue;
    else if (line.startsWith("Rss:")) resident = Number.parseInt(line.slice(4), 10);
    else if (line.startsWith("Anonymous:")) {
      if (Number.parseInt(line.slice(10), 10) === 0 && binding.syscall(SYS.madvise, start, end - start, MADV_DONTNEED) === 0)
        released += resident * 1024;
      start = 0;
    }
  }
  return released;
}
