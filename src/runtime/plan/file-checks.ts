// What an opened file is, whatever has its name: asked of the file itself, as names lead elsewhere in a moment.
import { errno, SYS } from "../../linux/index.ts";
import type { Label, Word } from "../tape.ts";
import { S } from "./constants.ts";
import type { Planner } from "./planner.ts";

export const S_IFMT = { value: S.S_IFMT, name: "S_IFMT" };

export const S_IFDIR = { value: S.S_IFDIR, name: "S_IFDIR" };

const PROC_SUPER_MAGIC = 0x9fa0;

/** Ends the tape unless the opened file is (or is not) procfs' own, whatever was mounted or linked there: struct statfs begins with the type. */
export function planProcCheck(p: Planner, fd: Word, inside: boolean, why: string): void {
  const { tape } = p;
  const room = tape.room(120, "statfs");
  const fine = tape.label();
  tape.step(SYS.fstatfs, [fd, room], { why });
  tape.when(tape.wordAt(room, 0, 8, "statfs.f_type"), inside ? "EQ" : "NE", { value: PROC_SUPER_MAGIC, name: "PROC_SUPER_MAGIC" }, fine);
  tape.fail(errno.EPERM, why);
  tape.place(fine);
}

/** Jumps to `real` where the opened file is the null device. struct stat: st_mode at 24, st_rdev at 40. */
export function planNullCheck({ tape }: Planner, fd: Word, why: string, real: Label): void {
  const fake = tape.label();
  const stat = tape.room(144, "stat");
  const type = tape.word("type");
  tape.step(SYS.fstat, [fd, stat], { why });
  tape.compute("AND", tape.wordAt(stat, 24, 4, "stat.st_mode"), S_IFMT, type);
  tape.when(type, "NE", { value: S.S_IFCHR, name: "S_IFCHR" }, fake);
  tape.when(tape.wordAt(stat, 40, 8, "stat.st_rdev"), "EQ", { value: 0x103, name: "makedev(1, 3)" }, real);
  tape.place(fake);
}
