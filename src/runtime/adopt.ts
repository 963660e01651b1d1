// Taking over containers whose shim died: what the keepers hold is fetched from them, what they recorded is read.
import { readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { Failure } from "../lib/errors.ts";
import { binding, close, errnoName, errnoText, O_NONBLOCK, O_RDWR, open, pidfdGetfd, pidfdOpen, pidfdSignal, SYS } from "../linux/index.ts";
import type { Spec } from "../oci/runtime-spec.ts";
import { openCgroup } from "./cgroups/index.ts";
import { runtimeContainer } from "./container.ts";
import type { RunningProcess, RuntimeContainer } from "./face.ts";
import { type Identity, openIdentity, parseStat } from "./identity.ts";
import { type Kept, runningProcess } from "./keeper.ts";
import { readable } from "./launch.ts";
import { FD, RECORD } from "./plan/layout.ts";
import type { ContainerState } from "./state-directory.ts";

function recorded(record: Buffer, offset: number): Identity | undefined {
  return record.length > offset && record[offset] !== 0 ? parseStat(record.toString("latin1", offset, offset + RECORD.stat)) : undefined;
}

/** Whether it still waits at the gate: what it executes is the player. */
function atGate(pid: number): boolean {
  try {
    return readlinkSync(`/proc/${pid}/exe`).startsWith("/memfd:player");
  } catch {
    return false;
  }
}

const LOCK_EX_NB = 2 | 4;
const KEEPER_MS = 2000;

/** The record with both processes in it. One that is being made is waited for: its makers hold the file's lock from before they run. */
async function completeRecord(path: string): Promise<Buffer | undefined> {
  let fd = -1;
  try {
    fd = open(path, O_RDWR);
    for (let tries = 0; ; tries++) {
      const record = readFileSync(path);
      if ((recorded(record, RECORD.keeper) && recorded(record, RECORD.process)) || tries > 400) return record;
      if (binding.syscall(SYS.flock, fd, LOCK_EX_NB) >= 0) return readFileSync(path);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  } catch {
    return undefined;
  } finally {
    close(fd);
  }
}

/** What is left of keeper and process; undefined where the keeper is gone, and then its process is ended too. */
async function adoptProcess(directory: string): Promise<Kept | undefined> {
  const record = await completeRecord(`${directory}/record`);
  if (!record) return undefined;
  const keeper = recorded(record, RECORD.keeper);
  const process = recorded(record, RECORD.process);
  const keeperPidfd = keeper && openIdentity(keeper);
  const pidfd = process && openIdentity(process);
  const opened: number[] = [];
  const keep = (fd: number) => {
    opened.push(fd);
    return fd;
  };
  if (keeperPidfd !== undefined) keep(keeperPidfd);
  if (pidfd !== undefined) keep(pidfd);
  try {
    const ended = record.length >= RECORD.size;
    if (!keeper || !process || keeperPidfd === undefined || (pidfd === undefined && !ended))
      throw new Failure("NotFound", "the keeper is gone");
    const notify = keep(pidfdGetfd(keeperPidfd, FD.notify));
    const control = keep(pidfdGetfd(keeperPidfd, FD.control));
    const held = binding.syscall(SYS.pidfd_getfd, keeperPidfd, FD.terminal, 0);
    const terminal = held >= 0 && isTerminal(held) ? keep(held) : undefined;
    if (held >= 0 && terminal === undefined) close(held);
    const gated = pidfd !== undefined && atGate(process.pid);
    const gate = gated
      ? { write: keep(pidfdGetfd(pidfd, FD.gateWrite)), report: keep(pidfdGetfd(pidfd, FD.reportRead)), home: { uid: uidOf(process.pid) } }
      : undefined;
    return {
      pid: process.pid,
      // Of a process that ended nothing is signalled any more; the keeper's own stands in.
      pidfd: pidfd ?? keep(pidfdOpen(keeper.pid)),
      keeper: keeper.pid,
      keeperPidfd,
      record: `${directory}/record`,
      notify,
      control,
      terminal,
      gate,
      failure: (_, number) => new Failure("Unknown", `the program could not be run: ${errnoName(number)} (${errnoText(number)})`),
      child: false,
    };
  } catch {
    if (pidfd !== undefined) pidfdSignal(pidfd, 9);
    if (keeperPidfd !== undefined) {
      pidfdSignal(keeperPidfd, 9);
      // Until it is gone it may still make a cgroup, which would stay.
      await readable([keeperPidfd], KEEPER_MS);
    }
    for (const fd of opened) close(fd);
    return undefined;
  }
}

function isTerminal(fd: number): boolean {
  if (binding.syscall(SYS.ioctl, fd, 0x5413, new Uint8Array(8)) < 0) return false;
  binding.syscall(SYS.fcntl, fd, 4, O_RDWR | O_NONBLOCK);
  return true;
}

function uidOf(pid: number): number {
  const line = /^Uid:\t(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"));
  return Number(line?.[1] ?? 0);
}

/** See Runtime.adopt: what cannot be taken over is ended and cleaned up. */
export async function adoptContainer(
  id: string,
  state: string,
): Promise<{ container: RuntimeContainer; execs: Map<string, RunningProcess> } | undefined> {
  let saved: ContainerState;
  try {
    saved = JSON.parse(readFileSync(`${state}/state.json`, "utf8")) as ContainerState;
  } catch {
    rmSync(state, { recursive: true, force: true });
    return undefined;
  }
  const directories = readdirSync(state)
    .filter((name) => name.startsWith("exec-"))
    .map((name) => ({ execId: name.slice(5), directory: `${state}/${name}` }));
  const init = saved.id === id ? await adoptProcess(state) : undefined;
  if (!init) {
    for (const { directory } of directories) release(await adoptProcess(directory));
    await openCgroup(saved.cgroup).remove(true);
    rmSync(state, { recursive: true, force: true });
    return undefined;
  }
  const spec = () => JSON.parse(readFileSync(`${saved.bundle}/config.json`, "utf8")) as Spec;
  const execs = new Map<string, RunningProcess>();
  for (const { execId, directory } of directories) {
    const kept = await adoptProcess(directory);
    const forget = () => rmSync(directory, { recursive: true, force: true });
    if (kept) execs.set(execId, runningProcess(kept, forget));
    else forget();
  }
  return { container: runtimeContainer(saved, state, spec, init, execs.values()), execs };
}

function release(kept: Kept | undefined): void {
  if (kept) runningProcess(kept, () => {}).release();
}
