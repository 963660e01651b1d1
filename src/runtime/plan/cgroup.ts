// The steps that make a container's cgroups, put its process there and show them inside.
import { errno, SYS, utf8 } from "../../linux/index.ts";
import type { CgroupPlan } from "../cgroups/index.ts";
import type { Word } from "../tape.ts";
import { AT_FDCWD, MOUNT_ATTR, O } from "./constants.ts";
import { attach, cloneTree, newFileSystem, planReadonlyMount } from "./detached-mounts.ts";
import { parseOptions } from "./mount-options.ts";
import type { Planner } from "./planner.ts";

/** v2's device rules: a BPF program of type CGROUP_DEVICE, loaded (5) and attached (8) to the cgroup for all that is below. */
function planDeviceRules(p: Planner, directory: string, program: Uint8Array): void {
  const { tape } = p;
  const cgroup = tape.word("cgroup_fd");
  const why = "attach the device rules";
  p.open(directory, O.O_DIRECTORY, cgroup, { why });
  const instructions = tape.bytes(program, `${program.length / 8} instructions`);
  // union bpf_attr: prog_type, insn_cnt, insns, license; the kernel takes a shorter one as ending in zeros.
  const load = tape.structure([15 + (program.length / 8) * 0x100000000, instructions, "Apache"], "{BPF_PROG_TYPE_CGROUP_DEVICE}");
  const loaded = tape.word("program");
  tape.step(SYS.bpf, [{ value: 5, name: "BPF_PROG_LOAD" }, load, 24], { store: loaded });
  // target_fd, attach_bpf_fd, attach_type BPF_CGROUP_DEVICE, attach_flags BPF_F_ALLOW_MULTI
  const attach = tape.structure([0, 6 + 2 * 0x100000000], "{cgroup_fd, program, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI}");
  tape.compute("ADD", cgroup, 0, tape.wordAt(attach, 0, 4, "attr.target_fd"));
  tape.compute("ADD", loaded, 0, tape.wordAt(attach, 4, 4, "attr.attach_bpf_fd"));
  tape.step(SYS.bpf, [{ value: 8, name: "BPF_PROG_ATTACH" }, attach, 16]);
  p.close(loaded);
  p.close(cgroup);
}

export function planCgroup(p: Planner, cgroup: CgroupPlan): void {
  const { tape } = p;
  for (const directory of cgroup.directories) {
    tape.step(SYS.mkdirat, [AT_FDCWD, directory, { value: 0o755, name: "0755" }], {
      why: `make cgroup ${directory}`,
      ignore: [errno.EEXIST],
    });
  }
  if (cgroup.devices) planDeviceRules(p, cgroup.directories.at(-1)!, cgroup.devices);
  // Rules for devices come one a write, but many to one file.
  const fd = tape.word("limit");
  cgroup.writes.forEach(({ file, value, why, ignore }, i) => {
    const first = cgroup.writes[i - 1]?.file !== file;
    const last = cgroup.writes[i + 1]?.file !== file;
    if (first && last) {
      p.writeFile(file, value, { why, ignore });
      return;
    }
    if (first) p.open(file, O.O_WRONLY, fd, { why });
    tape.step(SYS.write, [fd, value, utf8(value).length], { why, ignore });
    if (last) p.close(fd);
  });
}

/**
 * The process enters its v1 cgroups itself, alone: "0" into `tasks`. The kernel then takes no lock against forks; a pid written to cgroup.procs
 * has it wait for an RCU grace period, 13 ms here (kernel/cgroup/cgroup.c, cgroup_procs_write_start).
 */
export function planJoin(p: Planner, cgroup: CgroupPlan): void {
  const fd = p.tape.word("tasks");
  for (const directory of cgroup.join) {
    p.open(`${directory}/tasks`, O.O_WRONLY, fd, { why: `enter cgroup ${directory}` });
    p.tape.step(SYS.write, [fd, "0", 1], {});
    p.close(fd);
  }
}

/** The parent writes the process' pid to cgroup.procs of each hierarchy: a process in a new user namespace may not do it itself. */
export function planPlace(p: Planner, pid: Word, cgroup: CgroupPlan): void {
  const { tape } = p;
  const digits = tape.room(24, "pid_text");
  const fd = tape.word("procs");
  tape.decimal(pid, digits);
  for (const directory of cgroup.join) {
    p.open(`${directory}/cgroup.procs`, O.O_WRONLY, fd, { why: `put the process into cgroup ${directory}` });
    tape.step(SYS.write, [fd, digits, 21], {});
    p.close(fd);
  }
}

export function planCgroupSources(p: Planner, cgroup: CgroupPlan, namespace: boolean): { name: string; links: string[]; source: Word }[] {
  return cgroup.mounts.map(({ name, links, directory: own, withoutNamespace = own }) => {
    const directory = namespace ? own : withoutNamespace;
    const source = p.tape.word("cgroup");
    // Its own, as a mount made inside would be: CRIU cannot restore one that follows a part of the host's.
    const options = {
      ...parseOptions(["bind", "private"]),
      set: MOUNT_ATTR.MOUNT_ATTR_NOSUID | MOUNT_ATTR.MOUNT_ATTR_NODEV | MOUNT_ATTR.MOUNT_ATTR_NOEXEC,
    };
    cloneTree(p, AT_FDCWD, directory, options, source, `take cgroup ${directory}`);
    return { name, links, source };
  });
}

/** v2: the container's own cgroup; v1: a directory with the container's own cgroup of each hierarchy. */
export function planCgroupMount(
  p: Planner,
  destination: string,
  set: number,
  sources: { name: string; links: string[]; source: Word }[],
  cgroup: CgroupPlan,
  root: Word,
): void {
  const { tape } = p;
  const place = tape.word("place");
  const why = `mount cgroup on ${destination}`;
  const readonly = (fd: Word) => {
    if (set & MOUNT_ATTR.MOUNT_ATTR_RDONLY) planReadonlyMount(p, fd, why);
  };
  if (cgroup.version === 2) {
    const { source } = sources[0]!;
    readonly(source);
    p.ensure(root, destination, "directory", place, why);
    attach(p, source, place);
    p.close(place);
    p.close(source);
    return;
  }
  const top = tape.word("cgroups");
  newFileSystem(p, "tmpfs", "cgroup", [["mode", "755"]], set & ~MOUNT_ATTR.MOUNT_ATTR_RDONLY, top, why);
  p.ensure(root, destination, "directory", place, why);
  attach(p, top, place);
  p.close(place);
  for (const { name, links, source } of sources) {
    readonly(source);
    // Of what was just mounted nobody else knows.
    tape.step(SYS.mkdirat, [top, name, { value: 0o755, name: "0755" }], { why: `mount cgroup ${name} on ${destination}/${name}` });
    p.open(name, O.O_PATH | O.O_DIRECTORY, place, { at: top });
    attach(p, source, place);
    p.close(place);
    p.close(source);
    for (const link of links) tape.step(SYS.symlinkat, [name, top, link], { why: `link ${destination}/${link}`, ignore: [errno.EEXIST] });
  }
  readonly(top);
  p.close(top);
}
