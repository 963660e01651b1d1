// A user's home, by the accounts that a process sees.
import { close, O_PATH, O_RDONLY, open, openat2, RESOLVE_IN_ROOT, read, textOf } from "../linux/index.ts";

/** The home of `uid` in the /etc/passwd of the process' root, as runc looks it up; "/" where there is none. */
export function homeOf(pid: number, uid: number): string {
  let root = -1;
  let file = -1;
  try {
    root = open(`/proc/${pid}/root`, O_PATH);
    file = openat2(root, "/etc/passwd", O_RDONLY | 0o4000, { resolve: RESOLVE_IN_ROOT });
    const buffer = new Uint8Array(16384);
    let rest = "";
    for (let total = 0; total < 4 << 20; ) {
      const n = read(file, buffer);
      if (!n) break;
      total += n;
      const lines = (rest + textOf(buffer.subarray(0, n))).split("\n");
      rest = lines.pop()!;
      const home = homeIn(lines, uid);
      if (home) return home;
    }
    return homeIn([rest], uid) ?? "/";
  } catch {
    return "/";
  } finally {
    close(file);
    close(root);
  }
}

function homeIn(lines: string[], uid: number): string | undefined {
  for (const line of lines) {
    const fields = line.split(":");
    if (fields.length >= 6 && fields[2] === String(uid)) return fields[5] || "/";
  }
  return undefined;
}
