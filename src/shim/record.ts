// What a shim writes down of its tasks, for the one that takes over when it dies. In STATE/c/ID: `task`, and `exec.ID` for each exec; a line of
// single letters (phase, and for the task paused and deleting), then what never changes, as JSON. A change of phase overwrites one byte in place:
// that is whole or not at all for whoever reads it after this process' death, and costs a fifth of replacing the file. The runtime's own record
// is beside them, in STATE/c/ID/runtime; exits stand there, with the keepers.
import {
  binding,
  check,
  close,
  mkdirSync,
  O_WRONLY,
  open,
  readdirSync,
  readFileSync,
  removeSync,
  rmdirSync,
  SYS,
  unlinkSync,
  writeFileSync,
} from "../linux/index.ts";
import type { Process as SpecProcess } from "../oci/runtime-spec.ts";
import type { Restoration } from "./checkpoint.ts";
import type { Driver } from "./drivers.ts";
import type { Phase } from "./process.ts";
import type { Stdio } from "./stdio.ts";

export interface ExecRecord {
  stdio: Stdio;
  spec: SpecProcess;
}

export interface TaskRecord {
  bundle: string;
  driver: Driver | undefined;
  /** Kill what is left in the cgroup when init ends: it has no pid namespace of its own that would do it. */
  killAll: boolean;
  /** Standard input of its processes ends when it is told to, not with its writer. */
  keepInput?: boolean;
  stdio: Stdio;
  /** It begins at a checkpoint. */
  restoration?: Restoration;
}

export interface Found {
  id: string;
  /** Undefined: its creation was never answered. */
  task: (TaskRecord & { phase: Phase; paused: boolean; deleting: boolean }) | undefined;
  execs: Map<string, ExecRecord & { phase: Phase }>;
}

export interface Records {
  /** Makes a task's directory. */
  make(id: string): void;
  runtimeDir(id: string): string;
  writeTask(id: string, record: TaskRecord): void;
  writeExec(id: string, execId: string, record: ExecRecord): void;
  /** "": init. */
  phase(id: string, execId: string, phase: Phase): void;
  paused(id: string, paused: boolean): void;
  deleting(id: string, deleting: boolean): void;
  remove(id: string): void;
  removeExec(id: string, execId: string): void;
  all(): Found[];
}

const letters: Record<Phase, string> = { added: "a", created: "c", starting: "s", running: "r", stopped: "x" };
const phases = new Map(Object.entries(letters).map(([phase, letter]) => [letter, phase as Phase]));

export function records(state: string): Records {
  const root = `${state}/c`;
  const dir = (id: string): string => `${root}/${id}`;
  const file = (id: string, execId: string): string => (execId === "" ? `${dir(id)}/task` : `${dir(id)}/exec.${execId}`);
  mkdirSync(root, { recursive: true, mode: 0o700 });

  const poke = (path: string, position: number, letter: string): void => {
    const fd = open(path, O_WRONLY);
    try {
      check(binding.syscall(SYS.pwrite64, fd, letter, 1, position), `write ${path}`);
    } finally {
      close(fd);
    }
  };
  const read = <T>(path: string): { line: string; rest: T; phase: Phase } | undefined => {
    try {
      const text = readFileSync(path, "utf8");
      const end = text.indexOf("\n");
      const phase = phases.get(text[0] ?? "");
      return phase && end > 0 ? { line: text.slice(0, end), rest: JSON.parse(text.slice(end)) as T, phase } : undefined;
    } catch {
      // not there, or cut off by the death of the one who wrote it: it was never answered for
      return undefined;
    }
  };

  return {
    make(id) {
      mkdirSync(dir(id), { mode: 0o700 });
    },
    runtimeDir: (id) => `${dir(id)}/runtime`,
    writeTask(id, record) {
      writeFileSync(file(id, ""), `${letters.created}--\n${JSON.stringify(record)}`, { mode: 0o600 });
    },
    writeExec(id, execId, record) {
      writeFileSync(file(id, execId), `${letters.added}\n${JSON.stringify(record)}`, { mode: 0o600 });
    },
    phase: (id, execId, phase) => poke(file(id, execId), 0, letters[phase]),
    paused: (id, paused) => poke(file(id, ""), 1, paused ? "p" : "-"),
    deleting: (id, deleting) => poke(file(id, ""), 2, deleting ? "d" : "-"),
    remove(id) {
      try {
        // The usual case: the runtime removed its own, and nothing else is there.
        unlinkSync(file(id, ""));
        rmdirSync(dir(id));
      } catch {
        removeSync(dir(id));
      }
    },
    removeExec(id, execId) {
      try {
        unlinkSync(file(id, execId));
      } catch {
        // never written
      }
    },
    all() {
      return readdirSync(root).map((id) => {
        const found = read<TaskRecord>(file(id, ""));
        const execs: Found["execs"] = new Map();
        for (const name of readdirSync(dir(id))) {
          if (!name.startsWith("exec.")) continue;
          const exec = read<ExecRecord>(`${dir(id)}/${name}`);
          if (exec) execs.set(name.slice("exec.".length), { ...exec.rest, phase: exec.phase });
        }
        if (!found) return { id, task: undefined, execs };
        const task = { ...found.rest, phase: found.phase, paused: found.line[1] === "p", deleting: found.line[2] === "d" };
        return { id, task, execs };
      });
    },
  };
}
