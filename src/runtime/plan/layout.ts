// What the player's processes and TypeScript agree on: descriptor numbers, the record file, the records on the report pipe.

/** Descriptors of a keeper and of the process it starts, below those of the player (tape.ts). Preserved ones stay at 3 and up. */
export const FD = {
  /** pidfd of the process, in a keeper. */
  process: 30,
  /** pidfd of the helper that makes a network namespace, and two eventfds: written by the helper when it is made, by the process when it has it (network.ts). */
  networkHelper: 31,
  networkMade: 32,
  networkTaken: 33,
  /** First of the descriptors that the keeper holds until it is released. */
  hold: 40,
  holdEnd: 48,
  holdStdin: 48,
  /** Master of the terminal. */
  terminal: 49,
  /** eventfd: written when the exit stands in the record file. */
  notify: 50,
  /** eventfd: written to close holdStdin. */
  control: 51,
  /** The record file. */
  record: 52,
  /** Read end of the report pipe, and both ends of the gate; kept in the process until execve, so that another of ours can start it. */
  reportRead: 53,
  gateRead: 54,
  gateWrite: 55,
  /** eventfd: written by the parent when cgroups and id maps of the process are in place. */
  placed: 56,
  /** eventfd: written by the process when its terminal's master stands at `terminal`. */
  terminalReady: 57,
  /** pidfd of the container's init, for an exec. */
  target: 58,
  /** Read end of a pipe whose write end only the process' maker has: a byte lets it go on, its end says that nobody knows of it. */
  maker: 59,
} as const;
export const MAX_HOLD = FD.holdEnd - FD.hold;
export const MAX_PRESERVED = 32;

/** The record file: /proc/PID/stat of keeper and process (their pids with their start times), then how the process ended. */
export const RECORD = { keeper: 0, process: 512, exit: 1024, time: 1024 + 128, size: 1024 + 144, stat: 512 } as const;

/** Records on the report pipe: u32 tag, u32 index, i64 value (or two of 32 bits); 16 bytes each, so that they are never split. */
export const REPORT = { size: 16, failed: 0, pid: 1, ready: 2, hooks: 3, missing: 4, notify: 5, maps: 6, idmap: 7 } as const;

/** What the restorer of a process writes to the gate for the keeper: u64 pid of the process, u64 pid of CRIU, u64 its own descriptor of the terminal. */
export const RESTORED = { process: 0, criu: 8, terminal: 16, size: 24 } as const;

/** Room for the "HOME=…" that comes through the gate. */
export const HOME_ROOM = 4096;
