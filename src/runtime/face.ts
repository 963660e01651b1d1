// What a runtime does for the shim: containers and the processes in them. Ours (in process, by tapes) is one implementation; a runc-style
// command line is another. The life of a container:
//
//   createContainer → created (the init process waits at the gate, everything set up) → init.start() → running → init.exited → delete()
//
// and of a process: the keeper (the player, staying on as the process' parent) holds the process' pipes and terminal and records its exit, so that
// the shim can die at any moment and another one can adopt() the container with nothing lost: output still in the pipes, the exit status in
// the keeper's record.
import type { Resources, Spec, Process as SpecProcess } from "../oci/runtime-spec.ts";

/** A mount as containerd's snapshotters give it: `overlay` with lowerdir=…,upperdir=…,workdir=… ; `bind` with rbind, ro. */
export interface RootMount {
  type: string;
  source: string;
  target?: string;
  options: string[];
}

/** Descriptors of the caller for the new process; they stay the caller's (and may be closed after the call returned). -1: /dev/null. */
export interface ProcessIo {
  stdin: number;
  stdout: number;
  stderr: number;
  /** Allocate a terminal in the container's devpts instead; the three above are then ignored. */
  terminal: boolean;
  /** Descriptors that the keeper holds until release(): read ends of stdout and stderr FIFOs (so that buffered output outlives reader and writer). */
  hold: number[];
  /** Write end of the stdin FIFO, which the keeper holds until closeStdin(), so that stdin does not end because a client went away. -1: none. */
  holdStdin: number;
}

export interface ExitRecord {
  /** As a shell gives it: the exit code, or 128 + signal. */
  status: number;
  /** Milliseconds since 1970. */
  at: number;
}

export interface RunningProcess {
  /** In the host's pid namespace. */
  readonly pid: number;
  /** The keeper's pid. */
  readonly keeper: number;
  /** Master side of its terminal (O_NONBLOCK, O_CLOEXEC; owned by this object, closed by release()); undefined without a terminal. */
  readonly terminal: number | undefined;
  /** Opens the gate; resolves when the program's first instruction is about to run (execve succeeded). Throws Failure with a sentence like runc's: `exec: "foo": executable file not found in $PATH`. */
  start(): Promise<void>;
  readonly exited: Promise<ExitRecord>;
  /** False where it has ended. */
  signal(signal: number): boolean;
  resize(columns: number, rows: number): void;
  closeStdin(): void;
  /** Lets the keeper go and closes what it held. After the exit, and after the output was read. */
  release(): void;
}

export interface RuntimeContainer {
  readonly id: string;
  readonly init: RunningProcess;
  /**
   * A further process, started by start(); one without a terminal runs before that is called, so that it need not wait for it. With `opens`, which is
   * for processes without a terminal, it is made at once and waits at its gate; what is returned settles when the program runs, or when it was not
   * wanted (`opens` gave false) and nothing of it is left.
   */
  exec(options: { execId: string; process: SpecProcess; io: ProcessIo; opens?: Promise<boolean> }): Promise<RunningProcess>;
  /** Every process in the container's cgroup (pids of the host). */
  pids(): number[];
  killAll(signal: number): void;
  pause(): Promise<void>;
  resume(): Promise<void>;
  update(resources: Resources): void | Promise<void>;
  /** Writes its processes to a directory of images, by CRIU; they end then, unless they are to be left running. */
  checkpoint(options: CheckpointOptions): Promise<void>;
  /** Raw numbers of the cgroup controllers; see cgroups.ts. */
  stats(): CgroupStats;
  /** Calls back when the kernel kills a process in it for want of memory. */
  onOom(callback: () => void): () => void;
  /** Removes cgroup and state; kills what still runs where `force`. Idempotent. */
  delete(force?: boolean): Promise<void>;
}

/** What the cgroup says; bytes, nanoseconds and counts; undefined where the controller is not there. */
export interface CgroupStats {
  version: 1 | 2;
  memory?: {
    usage: number;
    maxUsage: number;
    limit: number;
    failcnt: number;
    stat: Record<string, number>;
    /** v2: memory.events by name. */
    events?: Record<string, number>;
    /** v1: memory and swap together; v2: swap alone. */
    swap?: Counter;
    kernel?: Counter;
    kernelTcp?: Counter;
  };
  cpu?: { usage: number; user: number; system: number; perCpu: number[]; periods: number; throttledPeriods: number; throttledTime: number };
  pids?: { current: number; limit: number };
  blkio?: { op: string; major: number; minor: number; value: number; kind: "serviceBytes" | "serviced" }[];
  /** By page size: "2MB". */
  hugetlb?: Record<string, Counter>;
}

/** Bytes, but failcnt. */
export interface Counter {
  usage: number;
  max: number;
  limit: number;
  failcnt: number;
}

export interface CreateOptions {
  id: string;
  /** The bundle directory (absolute); config.json there is `spec`, already parsed. */
  bundle: string;
  spec: Spec;
  /** Mounts that make the root file system, done inside the container's own mount namespace. Empty: spec.root.path is used as it is. */
  rootfs: RootMount[];
  io: ProcessIo;
  /** Directory for the runtime's state of this container (what adopt() reads); made, and removed by delete(). */
  state: string;
}

export interface CheckpointOptions {
  /** Directory of the images; made where it is missing. */
  images: string;
  /** Directory of CRIU's logs. */
  work: string;
  leaveRunning: boolean;
  /** An earlier checkpoint's directory, relative to this one's. */
  parent?: string | undefined;
  tcpEstablished?: boolean;
  externalUnixSockets?: boolean;
  shellJob?: boolean;
  fileLocks?: boolean;
  emptyNamespaces?: readonly string[];
  cgroupsMode?: string | undefined;
}

export interface RestoreOptions extends CreateOptions {
  /** Directories as above. */
  images: string;
  work: string;
}

export interface Runtime {
  /** A container that goes on where a checkpoint was taken: its init runs already. */
  restore(options: RestoreOptions): Promise<RuntimeContainer>;
  create(options: CreateOptions): Promise<RuntimeContainer>;
  /** Takes over a container that another process of ours created in `state`; undefined where it and its keepers are gone. Execs come with it. */
  adopt(id: string, state: string): Promise<{ container: RuntimeContainer; execs: Map<string, RunningProcess> } | undefined>;
}
