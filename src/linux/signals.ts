// Signals by name (signal(7), x86-64); node:os, which has them too, takes a third of a millisecond to load.
const NAMES =
  "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS";
const ALSO: Record<string, number> = { IOT: 6, POLL: 29 };

/** 15 for "SIGTERM", "term" and "Term". */
export function signalOf(name: string): number | undefined {
  const upper = name.toUpperCase();
  const short = upper.startsWith("SIG") ? upper.slice(3) : upper;
  const at = NAMES.split(" ").indexOf(short);
  return at < 0 ? ALSO[short] : at + 1;
}
