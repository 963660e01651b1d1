// Files in a container's directory that its tape is about (life-tape.ts).

/** The tape. */
export const LIFE_FILE = "life";
/** The record of an execve that failed when the tape opened the gate; for start.ts, which tells of it. */
export const FAILED_FILE = "failed";
