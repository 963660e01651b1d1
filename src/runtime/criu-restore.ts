// A container from the images of a checkpoint, running where it was. For a process that has nothing else to do: its mount namespace becomes
// another one on the way (criu-mounts.ts, prepareRoot).
import { closeSync, openSync, readFileSync } from "node:fs";
import { Failure } from "../lib/errors.ts";
import { binding, check, close, errno, SYS } from "../linux/index.ts";
import type { Spec } from "../oci/runtime-spec.ts";
import { type Cgroup, openCgroup, pathsOf } from "./cgroups/index.ts";
import { type Message, type Notification, OPTION, REQUEST, requestCriu } from "./criu.ts";
import { type ExternalMount, externalMounts, prepareRoot } from "./criu-mounts.ts";
import {
  type CriuSettings,
  type CriuSubject,
  commonOptions,
  externalNamespaces,
  givenAgain,
  type Images,
  openImages,
  readDescriptors,
} from "./criu-options.ts";
import type { RootMount } from "./face.ts";
import { planCgroup } from "./plan/cgroup.ts";
import { createPlanner } from "./plan/planner.ts";
import { startPlayer } from "./player.ts";
import { hearNow } from "./reports.ts";
import { stepText } from "./tape.ts";

export interface RestoreSettings extends CriuSettings {
  lsmProfile?: string | undefined;
  lsmMountContext?: string | undefined;
  /** CRIU and what it restores become children of this process' parent. */
  sibling?: boolean;
}

export interface Restored {
  pid: number;
  /** CRIU's, which has ended; its parent's to reap where it is a sibling. */
  criu: number;
  /** Master of its terminal. */
  terminal: number | undefined;
}

/**
 * This process' stdin, stdout and stderr take the places of the pipes that were there. `mounts` make the root file system; where there are none, it
 * is there. `atNamespaces` runs hooks while the process is nothing but its namespaces. The container's cgroups are the caller's to remove where this fails.
 */
export async function restoreProcess(
  subject: CriuSubject,
  mounts: readonly RootMount[],
  settings: RestoreSettings,
  atNamespaces: (pid: number) => Promise<void>,
): Promise<Restored> {
  const { spec, bundle, rootfs, cgroup: location } = subject;
  const unit = location.systemd ? await (await import("./cgroups/systemd.ts")).startUnit(location, spec) : undefined;
  let images: Images | undefined;
  try {
    const cgroup = openCgroup(location);
    const joins = makeCgroup(cgroup, spec);
    const external = prepareRoot(spec, rootfs, mounts, () => externalMounts(spec, bundle, cgroup, rootfs));
    // Directories are opened in the mount namespace that CRIU will be in.
    images = openImages(settings);
    return await revive(subject, settings, images, joins, external, atNamespaces);
  } finally {
    images?.close();
    unit?.release();
  }
}

async function revive(
  subject: CriuSubject,
  settings: RestoreSettings,
  images: Images,
  joins: string[],
  external: readonly ExternalMount[],
  atNamespaces: (pid: number) => Promise<void>,
): Promise<Restored> {
  const { spec, cgroup: location } = subject;
  const inherited = externalNamespaces(spec).map(({ path, name }) => ({ name, fd: openSync(path, "r") }));
  let terminal: number | undefined;
  let criu = 0;
  let done = false;
  try {
    const options: Message = [
      ...commonOptions(settings, images, subject, "restore.log"),
      [OPTION.evasiveDevices, true],
      [OPTION.sibling, true],
      [OPTION.securityProfile, settings.lsmProfile],
      [OPTION.securityMountContext, settings.lsmMountContext],
      ...external.map(({ inside, source }): Message[number] => [OPTION.externalMount, pair(inside, source)]),
      ...givenAgain(readDescriptors(images)).map(({ name, fd }): Message[number] => [OPTION.inheritFd, pair(name, fd)]),
      ...inherited.map(({ name }, i): Message[number] => [OPTION.inheritFd, pair(name, 4 + i)]),
    ];
    const heard = async ({ script, pid, fd }: Notification) => {
      if (script === "setup-namespaces") await atNamespaces(pid);
      else if (script === "orphan-pts-master" && fd !== undefined) {
        terminal = fd;
        return;
      }
      if (fd !== undefined) close(fd);
    };
    // CRIU's children begin where it is itself, and paths of cgroups that were written down count from there.
    const join = (pid: number): Message => {
      criu = pid;
      for (const directory of joins) writeProcs(directory, pid);
      const now = pathsOf(readFileSync(`/proc/${pid}/cgroup`, "utf8"));
      const { version, directories } = location;
      const names = version === 1 ? Object.keys(directories).filter((name) => name !== "") : [""];
      return names.flatMap((name) => {
        const path = now.get(name);
        return path === undefined ? [] : [[OPTION.cgroupRoot, pair(name || undefined, path)] satisfies Message[number]];
      });
    };
    const { pid } = await requestCriu(
      {
        type: REQUEST.restore,
        options,
        inherited: inherited.map(({ fd }) => fd),
        criu: settings.criu,
        sibling: settings.sibling ?? false,
        log: `${images.work}/restore.log`,
      },
      join,
      heard,
    );
    done = true;
    return { pid, criu, terminal };
  } finally {
    for (const { fd } of inherited) closeSync(fd);
    if (!done && terminal !== undefined) close(terminal);
  }
}

const pair = (key: string | undefined, value: string | number): Message => [
  [1, key],
  [2, value],
];
const P_PIDFD = 3;
const WEXITED = 4;

/** Makes the container's cgroups with their limits; gives the directories that its processes join. */
function makeCgroup(cgroup: Cgroup, spec: Spec): string[] {
  const p = createPlanner();
  const plan = cgroup.plan(spec.linux?.resources ?? {});
  planCgroup(p, plan);
  const none = { preserved: [], hold: [], holdStdin: -1, record: -1, notify: -1, control: -1, target: -1 };
  const player = startPlayer("jubako-runtime", p.tape.encode(), { stdio: [-1, -1, 2], ...none }, 0);
  try {
    let failed: string | undefined;
    hearNow(player.report, (report) => {
      if (report.tag === "failed") failed = stepText(p.tape.steps[report.index]!);
      return report.tag === "failed" || report.tag === "end";
    });
    while (binding.syscall(SYS.waitid, P_PIDFD, player.pidfd, new Int32Array(32), WEXITED, null) === -errno.EINTR);
    if (failed) throw new Failure("Unknown", `make the container's cgroups: ${failed}`);
  } finally {
    player.close();
  }
  return plan.join;
}

function writeProcs(directory: string, pid: number): void {
  const fd = check(binding.syscall(SYS.openat, -100, `${directory}/cgroup.procs`, 1 | 0o2000000, 0), `open ${directory}/cgroup.procs`);
  const text = Buffer.from(String(pid));
  const written = binding.syscall(SYS.write, fd, text, text.length);
  close(fd);
  check(written, `put criu into ${directory}`);
}
