// What a shim writes down of its tasks, for the one that takes over when it dies: STATE/c/ID/task.json, replaced atomically at each change of
// phase. The runtime's own record is beside it, in STATE/c/ID/runtime; exits stand there, with the keepers.
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import type { Process as SpecProcess } from "../oci/runtime-spec.ts";
import type { Driver } from "./drivers.ts";
import type { Phase } from "./process.ts";
import type { Stdio } from "./stdio.ts";

export interface ProcessRecord {
  stdio: Stdio;
  phase: Phase;
  spec?: SpecProcess;
}

export interface TaskRecord {
  id: string;
  bundle: string;
  driver: Driver | undefined;
  /** Kill what is left in the cgroup when init ends: it has no pid namespace of its own that would do it. */
  killAll: boolean;
  paused: boolean;
  deleting: boolean;
  init: ProcessRecord;
  execs: Record<string, ProcessRecord>;
}

export interface Records {
  /** Directory of a task, made. */
  make(id: string): string;
  runtimeDir(id: string): string;
  write(record: TaskRecord): void;
  remove(id: string): void;
  /** Every task written down; a directory without a record is given with `record` undefined: its creation was never answered. */
  all(): { id: string; record: TaskRecord | undefined }[];
}

export function records(state: string): Records {
  const root = `${state}/c`;
  const dir = (id: string): string => `${root}/${id}`;
  mkdirSync(root, { recursive: true, mode: 0o700 });
  return {
    make(id) {
      mkdirSync(dir(id), { recursive: true, mode: 0o700 });
      return dir(id);
    },
    runtimeDir: (id) => `${dir(id)}/runtime`,
    write(record) {
      const file = `${dir(record.id)}/task.json`;
      writeFileSync(`${file}.new`, JSON.stringify(record), { mode: 0o600 });
      renameSync(`${file}.new`, file);
    },
    remove(id) {
      rmSync(dir(id), { recursive: true, force: true });
    },
    all() {
      return readdirSync(root).map((id) => {
        let record: TaskRecord | undefined;
        try {
          record = JSON.parse(readFileSync(`${dir(id)}/task.json`, "utf8")) as TaskRecord;
        } catch {
          record = undefined;
        }
        return { id, record };
      });
    },
  };
}
