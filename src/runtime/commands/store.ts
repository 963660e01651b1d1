// The containers of a command line: a directory each below --root, found again by every later command.
//
//   ROOT/ID/state.json    what is below in Stored
//   ROOT/ID/config.json   the specification it was created from
//   ROOT/ID/life          a tape for its start and its end (life-tape.ts), where it may have one
import { Failure, failedPrecondition, invalidArgument, notFound } from "../../lib/errors.ts";
import {
  binding,
  check,
  close,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  removeSync,
  renameSync,
  rmdirSync,
  SYS,
  writeFileSync,
} from "../../linux/index.ts";
import type { Spec, State } from "../../oci/runtime-spec.ts";
import { type Cgroup, type CgroupLocation, openCgroup } from "../cgroups/index.ts";
import { type Identity, identityOf } from "../identity.ts";
import { LIFE_FILE } from "../life-file.ts";

export interface Stored {
  ociVersion: string;
  id: string;
  bundle: string;
  rootfs: string;
  /** RFC 3339. */
  created: string;
  init: Identity;
  cgroup: CgroupLocation;
  owner: string;
  annotations?: Record<string, string>;
}

export type Status = "created" | "running" | "paused" | "stopped";

const DIR_FLAGS = 0o200000 | 0o2000000;

export interface Store {
  root: string;
  /** Makes the container's directory; AlreadyExists where it is there. */
  reserve(id: string): string;
  /** Writes down what is going to be made, so that a creation that was killed can be cleaned up. */
  announce(id: string, spec: Spec): void;
  save(stored: Stored): void;
  saveTape(id: string, tape: Uint8Array): void;
  load(id: string): Stored;
  spec(id: string): Spec;
  remove(id: string): void;
  /** `strict`: the directory has to be there. */
  list(strict: boolean): Stored[];
  /** Holds the container's lock (flock on its directory) while `fn` runs. */
  locked<T>(id: string, fn: () => Promise<T>): Promise<T>;
}

const ID_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-";

export function checkId(id: string): void {
  let known = id !== "" && id !== "." && id !== "..";
  for (let i = 0; i < id.length; i++) if (!ID_CHARACTERS.includes(id[i]!)) known = false;
  if (!known) throw invalidArgument(`invalid container ID format: ${JSON.stringify(id)}`);
}

export function openStore(root: string): Store {
  const directory = (id: string) => {
    checkId(id);
    return `${root}/${id}`;
  };
  const missing = () => notFound("container does not exist");
  return {
    root,
    reserve(id) {
      const path = directory(id);
      if (!existsSync(root)) mkdirSync(root, { recursive: true, mode: 0o700 });
      try {
        mkdirSync(path, { mode: 0o711 });
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "EEXIST")
          throw new Failure("AlreadyExists", "container with given ID already exists");
        throw error;
      }
      return path;
    },
    announce: (id, spec) => writeFileSync(`${directory(id)}/config.json`, JSON.stringify(spec), { mode: 0o600 }),
    save(stored) {
      const path = directory(stored.id);
      writeFileSync(`${path}/.state.json`, JSON.stringify(stored), { mode: 0o600 });
      renameSync(`${path}/.state.json`, `${path}/state.json`);
    },
    saveTape(id, tape) {
      const path = directory(id);
      writeFileSync(`${path}/.${LIFE_FILE}`, tape, { mode: 0o600 });
      renameSync(`${path}/.${LIFE_FILE}`, `${path}/${LIFE_FILE}`);
    },
    load(id) {
      try {
        return JSON.parse(readFileSync(`${directory(id)}/state.json`, "utf8")) as Stored;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENOENT") throw missing();
        throw error;
      }
    },
    spec: (id) => JSON.parse(readFileSync(`${directory(id)}/config.json`, "utf8")) as Spec,
    remove(id) {
      const path = directory(id);
      try {
        for (const file of ["config.json", "state.json", LIFE_FILE]) binding.syscall(SYS.unlink, `${path}/${file}`);
        rmdirSync(path);
      } catch {
        removeSync(path);
      }
    },
    list(strict) {
      let names: string[] = [];
      try {
        names = readdirSync(root);
      } catch (error) {
        if (strict) throw error;
        return [];
      }
      const all: Stored[] = [];
      for (const name of names.sort()) {
        try {
          all.push(JSON.parse(readFileSync(`${root}/${name}/state.json`, "utf8")) as Stored);
        } catch {
          // a container that is being made or removed
        }
      }
      return all;
    },
    async locked(id, fn) {
      const fd = binding.syscall(SYS.openat, -100, directory(id), DIR_FLAGS, 0);
      if (fd < 0) throw missing();
      try {
        check(binding.syscall(SYS.flock, fd, 2), "flock");
        return await fn();
      } finally {
        close(fd);
      }
    },
  };
}

export function cgroupOf(stored: Stored): Cgroup {
  return openCgroup(stored.cgroup);
}

/** Every process of the container: where there is no cgroup, those of its pid namespace. */
export function pidsOf(stored: Stored): number[] {
  if (Object.keys(stored.cgroup.directories).length > 0) return cgroupOf(stored).pids();
  const namespaceOf = (pid: number | "self") => {
    try {
      return readlinkSync(`/proc/${pid}/ns/pid`);
    } catch {
      return undefined;
    }
  };
  const { pid, start } = stored.init;
  const own = identityOf(pid)?.start === start ? namespaceOf(pid) : undefined;
  if (own === undefined || own === namespaceOf("self")) return own === undefined ? [] : [pid];
  return readdirSync("/proc").flatMap((name) => (/^\d+$/.test(name) && namespaceOf(Number(name)) === own ? [Number(name)] : []));
}

/** What the kernel says now. */
export function statusOf(stored: Stored): Status {
  const { pid, start } = stored.init;
  if (identityOf(pid)?.start !== start) return "stopped";
  let letter = "";
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    letter = stat[stat.lastIndexOf(")") + 2] ?? "";
  } catch {
    return "stopped";
  }
  if (letter === "Z" || letter === "X") return "stopped";
  if (cgroupOf(stored).frozen()) return "paused";
  try {
    return readlinkSync(`/proc/${pid}/exe`).startsWith("/memfd:player") ? "created" : "running";
  } catch {
    return "running";
  }
}

/** The state as hooks get it, in the order of the specification. */
export function stateOf(stored: Stored, status: State["status"] | Status): State {
  return {
    ociVersion: stored.ociVersion,
    id: stored.id,
    status: status as State["status"],
    ...(status === "stopped" ? {} : { pid: stored.init.pid }),
    bundle: stored.bundle,
    ...(stored.annotations && Object.keys(stored.annotations).length ? { annotations: stored.annotations } : {}),
  };
}

export function requireStatus(stored: Stored, wanted: Status[], sentence: string): void {
  if (!wanted.includes(statusOf(stored))) throw failedPrecondition(sentence);
}
