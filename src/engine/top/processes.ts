// The processes of a container as `ps -ef` lists them, read from /proc: no program is run for the usual question.
import { readFileSync } from "node:fs";

export const TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];

const USER_HZ = 100;

/** Names of the host's users by uid. */
export function userNames(passwd: string): Map<number, string> {
  const names = new Map<number, string>();
  for (const line of passwd.split("\n")) {
    const [name, , uid] = line.split(":");
    if (name && uid && !names.has(Number(uid))) names.set(Number(uid), name);
  }
  return names;
}

/** "pts/3", "tty1", "?" for a tty_nr of /proc/PID/stat. */
export function terminalName(device: number): string {
  const major = (device >> 8) & 0xfff;
  const minor = (device & 0xff) | ((device >> 12) & 0xfff00);
  if (major >= 136 && major <= 143) return `pts/${(major - 136) * 256 + minor}`;
  if (major === 4) return minor < 64 ? `tty${minor}` : `ttyS${minor - 64}`;
  return "?";
}

function clock(seconds: number): string {
  const two = (n: number) => String(n).padStart(2, "0");
  return `${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(Math.floor(seconds) % 60)}`;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Begun within the last day: the time; within the year: the day; else the year. */
function startTime(began: Date, now: Date): string {
  const two = (n: number) => String(n).padStart(2, "0");
  if (now.getTime() - began.getTime() < 24 * 3600 * 1000) return `${two(began.getHours())}:${two(began.getMinutes())}`;
  if (began.getFullYear() === now.getFullYear()) return `${MONTHS[began.getMonth()]}${two(began.getDate())}`;
  return String(began.getFullYear());
}

function bootTime(): number {
  return Number(/^btime (\d+)$/m.exec(readFileSync("/proc/stat", "utf8"))?.[1] ?? 0);
}

/** Rows in the order of TITLES; processes that ended meanwhile are left out. */
export function listProcesses(pids: number[]): string[][] {
  const names = userNames(readFileSync("/etc/passwd", "utf8"));
  const boot = bootTime();
  const now = new Date();
  const rows: string[][] = [];
  for (const pid of pids) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      // The name stands in parentheses and may hold any character, parentheses and spaces too.
      const close = stat.lastIndexOf(")");
      const name = stat.slice(stat.indexOf("(") + 1, close);
      const fields = stat.slice(close + 2).split(" ");
      const uid = Number(/^Uid:\s+\d+\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0);
      const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replace(/\0+$/, "").replaceAll("\0", " ");
      const seconds = (Number(fields[11]) + Number(fields[12])) / USER_HZ;
      const began = boot + Number(fields[19]) / USER_HZ;
      const age = Math.max(1, now.getTime() / 1000 - began);
      rows.push([
        names.get(uid) ?? String(uid),
        String(pid),
        fields[1]!,
        String(Math.min(99, Math.floor((seconds / age) * 100))),
        startTime(new Date(began * 1000), now),
        terminalName(Number(fields[4])),
        clock(seconds),
        line === "" ? `[${name}]` : line,
      ]);
    } catch {
      // it ended while we looked
    }
  }
  return rows;
}
