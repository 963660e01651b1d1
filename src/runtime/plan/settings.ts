// Single settings of a container: loopback, sysctl, security label, personality.
import { invalidArgument } from "../../lib/errors.ts";
import { SYS, utf8 } from "../../linux/index.ts";
import type { Namespace, Spec } from "../../oci/runtime-spec.ts";
import type { Label, Word } from "../tape.ts";
import { IOCTL, O } from "./constants.ts";
import type { Facts } from "./facts.ts";
import { planProcCheck } from "./file-checks.ts";
import type { Planner } from "./planner.ts";

/** A new network namespace has its loopback down. `failed`: where to go on if it stays so. */
export function planLoopback(p: Planner, failed?: Label): void {
  const { tape } = p;
  const jump = failed && { to: failed };
  const socket = tape.word("socket");
  const request = new Uint8Array(40);
  request.set(utf8("lo"));
  new DataView(request.buffer).setUint16(16, 1 | 0x40, true);
  tape.step(SYS.socket, [{ value: 2, name: "AF_INET" }, { value: 2 | 0o2000000, name: "SOCK_DGRAM|SOCK_CLOEXEC" }, 0], {
    why: "bring up lo",
    store: socket,
    jump,
  });
  tape.step(SYS.ioctl, [socket, IOCTL.SIOCSIFFLAGS, tape.bytes(request, '{"lo", IFF_UP|IFF_RUNNING}')], { jump });
  p.close(socket);
}

/** As the kernel takes names (dev_valid_name). */
const validDevice = (name: string) => /^[^\s/:\0]{1,15}$/.test(name) && name !== "." && name !== "..";

export function checkNetDevices(spec: Spec): void {
  const devices = Object.entries(spec.linux?.netDevices ?? {});
  if (devices.length === 0) return;
  if (!spec.linux?.namespaces?.some(({ type }) => type === "network"))
    throw invalidArgument("unable to move network devices without a private NET namespace");
  const inside = new Set<string>();
  for (const [device, { name = device }] of devices) {
    for (const each of [device, name]) if (!validDevice(each)) throw invalidArgument(`invalid network device name ${JSON.stringify(each)}`);
    if (inside.has(name)) throw invalidArgument(`network device name ${JSON.stringify(name)} is asked for twice`);
    inside.add(name);
  }
}

/** Settings that each IPC namespace has of its own, beside those below fs.mqueue. */
const ipcSettings = new Set(
  ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"].map((n) => `kernel/${n}`),
);

/** A setting of the whole machine is not a container's to change; the words are runc's. */
function checkSysctl(name: string, path: string, namespaces: readonly Namespace[]): void {
  const has = (type: Namespace["type"]) => namespaces.some((n) => n.type === type);
  const quoted = `sysctl ${JSON.stringify(name)}`;
  if (path.split("/").includes("..")) throw invalidArgument(`${quoted} is not a name`);
  if (path === "kernel/hostname") throw invalidArgument(`${quoted} is not allowed as it conflicts with the OCI "hostname" field`);
  if (ipcSettings.has(path) || path.startsWith("fs/mqueue/")) {
    if (!has("ipc")) throw invalidArgument(`${quoted} is not allowed in the hosts ipc namespace`);
  } else if (path.startsWith("net/")) {
    if (!has("network")) throw invalidArgument(`${quoted} not allowed in host network namespace`);
  } else if (path === "kernel/domainname") {
    if (!has("uts")) throw invalidArgument(`${quoted} is not allowed without a private UTS namespace`);
  } else throw invalidArgument(`${quoted} is not in a separate kernel namespace`);
}

export function planSysctl(p: Planner, name: string, value: string, root: Word, namespaces: readonly Namespace[]): void {
  const { tape } = p;
  // A dot separates; a slash does so too, and a name that begins with slashes may have dots in it (sysctl.d(5)).
  const path = name.includes("/") && (!name.includes(".") || name.indexOf("/") < name.indexOf(".")) ? name : name.replaceAll(".", "/");
  checkSysctl(name, path.replace(/^\/+/, ""), namespaces);
  const fd = tape.word("sysctl");
  p.openInRoot(root, `/proc/sys/${path}`, O.O_WRONLY, fd, { why: `set sysctl ${name} to ${value}`, noSymlinks: true });
  planProcCheck(p, fd, true, `set sysctl ${name} to ${value}`);
  tape.step(SYS.write, [fd, value, utf8(value).length]);
  p.close(fd);
}

export function openLabel(p: Planner, spec: Spec, facts: Facts): { text: string; fd: Word } | undefined {
  const { apparmorProfile, selinuxLabel } = spec.process!;
  if (selinuxLabel && !facts.selinux)
    throw invalidArgument("selinux label is specified in config, but selinux is disabled or not supported");
  if (apparmorProfile && apparmorProfile !== "unconfined" && !facts.apparmor) {
    throw invalidArgument(`apparmor profile ${JSON.stringify(apparmorProfile)} is specified in config, but the kernel has no apparmor`);
  }
  const text = apparmorProfile && apparmorProfile !== "unconfined" ? `exec ${apparmorProfile}` : selinuxLabel;
  if (!text) return undefined;
  const fd = p.tape.word("label");
  const file = apparmorProfile && facts.apparmor ? "/proc/thread-self/attr/apparmor/exec" : "/proc/thread-self/attr/exec";
  p.open(file, O.O_WRONLY, fd, { why: "open the security label" });
  return { text, fd };
}

const personalities: Record<string, number> = { LINUX: 0, LINUX32: 8 };

export function planPersonality(p: Planner, spec: Spec): void {
  const personality = spec.linux?.personality;
  if (!personality) return;
  const domain = personalities[personality.domain ?? "LINUX"];
  if (domain === undefined || personality.flags?.length)
    throw invalidArgument("additional personality flags are not supported: the specification names none");
  p.tape.step(SYS.personality, [domain], { why: `set the personality ${personality.domain}` });
}

const MAX_BITS = 8192;

/** "0-3,7" as a bit mask of whole 64-bit words. */
export function bitList(text: string, what: string): Uint8Array {
  const bits: number[] = [];
  for (const part of text.replaceAll(" ", "").split(",").filter(Boolean)) {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part);
    const [from, to] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])];
    if (!match || from > to || to >= MAX_BITS) throw invalidArgument(`${what} ${JSON.stringify(text)} is not a list of numbers`);
    for (let bit = from; bit <= to; bit++) bits.push(bit);
  }
  const mask = new Uint8Array(8 * Math.ceil((Math.max(0, ...bits) + 1) / 64));
  for (const bit of bits) mask[bit >> 3]! |= 1 << (bit & 7);
  return mask;
}

/** process.execCPUAffinity: of a further process, before and after it joins the container's cgroup. */
export function planAffinity(p: Planner, cpus: string | undefined, when: "initial" | "final"): void {
  if (!cpus) return;
  const mask = bitList(cpus, `execCPUAffinity.${when}`);
  p.tape.step(SYS.sched_setaffinity, [0, mask.length, p.tape.bytes(mask, `[${cpus}]`)], { why: `run on cpus ${cpus}` });
}

/** As many as the kernel can have: it takes those that are there, and that its cpuset allows, now and later. */
const ALL_CPUS = new Uint8Array(8192 / 8).fill(0xff);

/** Whoever asks for a container may run on some cpus only (taskset, a systemd unit's CPUAffinity=): the container's are its cpuset's. */
export function planAllCpus(p: Planner): void {
  p.tape.step(SYS.sched_setaffinity, [0, ALL_CPUS.length, p.tape.bytes(ALL_CPUS, "[all]")], { why: "run on all cpus", ignore: "all" });
}

const memoryModes: Record<string, number> = {
  MPOL_DEFAULT: 0,
  MPOL_PREFERRED: 1,
  MPOL_BIND: 2,
  MPOL_INTERLEAVE: 3,
  MPOL_LOCAL: 4,
  MPOL_PREFERRED_MANY: 5,
  MPOL_WEIGHTED_INTERLEAVE: 6,
};
const memoryFlags: Record<string, number> = { MPOL_F_NUMA_BALANCING: 0x2000, MPOL_F_RELATIVE_NODES: 0x4000, MPOL_F_STATIC_NODES: 0x8000 };

const withoutNodes = new Set(["MPOL_DEFAULT", "MPOL_LOCAL"]);
const withNodes = new Set(["MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE"]);

export const memoryPolicyModes = Object.keys(memoryModes);
export const memoryPolicyFlags = Object.keys(memoryFlags);

export function planMemoryPolicy(p: Planner, spec: Spec): void {
  const policy = spec.linux?.memoryPolicy;
  if (!policy) return;
  let mode = memoryModes[policy.mode ?? ""];
  if (mode === undefined) throw invalidArgument(`invalid memory policy mode ${JSON.stringify(policy.mode ?? "")}`);
  for (const name of policy.flags ?? []) {
    const flag = memoryFlags[name];
    if (flag === undefined) throw invalidArgument(`invalid memory policy flag ${JSON.stringify(name)}`);
    mode |= flag;
  }
  const { tape } = p;
  const mask = policy.nodes ? bitList(policy.nodes, "invalid memory policy nodes:") : undefined;
  let count = 0;
  for (const byte of mask ?? []) count += byte.toString(2).replaceAll("0", "").length;
  if (count > 0 && withoutNodes.has(policy.mode ?? "")) throw invalidArgument(`memory policy mode requires 0 nodes but got ${count}`);
  if (count === 0 && withNodes.has(policy.mode ?? "")) throw invalidArgument("memory policy mode requires at least one node but got 0");
  const nodes = mask ? [tape.bytes(mask, `[${policy.nodes}]`), mask.length * 8 + 1] : [0, 0];
  tape.step(SYS.set_mempolicy, [{ value: mode, name: [policy.mode, ...(policy.flags ?? [])].join("|") }, ...nodes], {
    why: `set the memory policy ${policy.mode}`,
  });
}
