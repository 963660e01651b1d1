// A plan with blanks: containers of one kind differ in names only (id, bundle, layers, sources of binds, namespaces, environment), which go
// through a plan unread, into strings for the kernel. What is made from stand-ins of the same lengths is laid out as the plan would be, and is
// filled in for each container.
import { utf8 } from "../../linux/index.ts";
import type { CgroupPlan } from "../cgroups/index.ts";
import type { RootMount } from "../face.ts";
import { dataOf, type Tape } from "../tape.ts";
import type { CreateInput } from "./create.ts";
import { environmentOf } from "./environment.ts";
import type { Facts } from "./facts.ts";
import { MARK } from "./mark.ts";
import { insideRoot, rootPathOf } from "./root-path.ts";

export interface Template {
  encoded: Uint8Array;
  /** What goes where: the number of the name, the offset in `encoded`. */
  blanks: [name: number, at: number][];
}

/** The input with stand-ins, facts that know them, and the names they stand for. */
export interface Blanked {
  input: CreateInput;
  facts: Facts;
  names: string[];
  /** Equal for inputs whose plans differ in names only. */
  key: string;
}

const FILL = "\x7f";
const unusual = ["\0", MARK, FILL];
// A mark, two digits in base 36, and a slash before them for a path.
const SHORTEST = 4;
const MOST = 36 * 36;
const encoder = new TextEncoder();

/** Undefined where names decide what the plan is, or are unusual. */
export function blank(input: CreateInput, facts: Facts): Blanked | undefined {
  const { spec, rootfs } = input;
  const { process, mounts = [], linux = {} } = spec;
  // What reads files, what hands names on, and what takes paths apart.
  if (!process || mounts.some(({ options }) => options?.includes("tmpcopyup"))) return undefined;
  const root = rootPathOf(spec, input.bundle);
  const hostPath = (name: string) => (name.startsWith("/") ? name : `${input.bundle}/${name}`);
  const within = (name: string | undefined) => name !== undefined && insideRoot(root, hostPath(name)) !== undefined;
  if (mounts.some(({ destination, source }) => within(destination) || within(source))) return undefined;
  if (input.seccomp?.notifies || input.pauseForHooks || facts.ordinaryUser || facts.kernel < 6.08) return undefined;

  const names: string[] = [];
  const standIns = new Map<string, string>();
  let usual = true;
  const standIn = (name: string): string => {
    let by = standIns.get(name);
    if (by !== undefined) return by;
    const length = encoder.encode(name).length;
    if (unusual.some((each) => name.includes(each)) || names.length === MOST) usual = false;
    if (length < SHORTEST) by = name;
    else {
      by = `${name.startsWith("/") ? "/" : ""}${MARK}${names.length.toString(36).padStart(2, "0")}`.padEnd(length, FILL);
      names.push(name);
    }
    standIns.set(name, by);
    return by;
  };
  const path = (name: string) => (name.startsWith("/") ? standIn(name) : name);

  const bundle = path(input.bundle);
  const kinds = new Map<string, "directory" | "file">();
  const blankedMounts = mounts.map((mount) => {
    const { source } = mount;
    if (!source || (mount.type !== "bind" && !mount.options?.some((option) => option === "bind" || option === "rbind"))) return mount;
    const by = standIn(source);
    const kind = facts.kindOf(source.startsWith("/") ? source : `${input.bundle}/${source}`);
    kinds.set(by.startsWith("/") ? by : `${bundle}/${by}`, kind);
    return { ...mount, source: by };
  });
  const blankedSpec = {
    ...spec,
    annotations: {},
    ...(spec.root ? { root: { ...spec.root, path: path(spec.root.path) } } : {}),
    ...(spec.hostname ? { hostname: standIn(spec.hostname) } : {}),
    process: {
      ...process,
      ...(process.args ? { args: process.args.map((arg, i) => (i === 0 ? arg : standIn(arg))) } : {}),
      ...(process.env
        ? {
            env: environmentOf(process.env).env.map((each) =>
              each.startsWith("PATH=") || each.startsWith("HOME=") ? each : standIn(each),
            ),
          }
        : {}),
    },
    mounts: blankedMounts,
    linux: {
      ...linux,
      cgroupsPath: "",
      ...(linux.namespaces ? { namespaces: linux.namespaces.map((each) => (each.path ? { ...each, path: path(each.path) } : each)) } : {}),
    },
  };
  const blanked: CreateInput = {
    ...input,
    id: standIn(input.id),
    bundle,
    spec: blankedSpec,
    rootfs: rootfs.map((mount) => blankRoot(mount, path)),
    cgroup: input.cgroup && blankCgroup(input.cgroup, path),
  };
  if (!usual) return undefined;
  const { seccomp: _, ...unfiltered } = blankedSpec.linux;
  const key = JSON.stringify([
    {
      ...blanked,
      seccomp: numberOf(input.seccomp),
      spec: { ...blankedSpec, linux: unfiltered },
      // As an object of numbers, which is what JSON makes of bytes, it takes longer than all the rest.
      cgroup: blanked.cgroup && { ...blanked.cgroup, devices: String.fromCharCode(...(blanked.cgroup.devices ?? [])) },
    },
    [...kinds.values()],
  ]);
  return { input: blanked, facts: { ...facts, kindOf: (source) => kinds.get(source) ?? facts.kindOf(source) }, names, key };
}

let filters = 0;
const numbers = new WeakMap<object, number>();

/** Compiled filters are kept: the same is the same object. */
function numberOf(filter: object | undefined): number {
  if (!filter) return 0;
  const number = numbers.get(filter) ?? ++filters;
  numbers.set(filter, number);
  return number;
}

function blankRoot(mount: RootMount, path: (name: string) => string): RootMount {
  const { type, source, options } = mount;
  if (type !== "overlay") return { ...mount, source: path(source) };
  return {
    ...mount,
    options: options.map((option) => {
      const [, key, value] = /^(lowerdir|upperdir|workdir)=([^\\]*)$/.exec(option) ?? [];
      if (!key) return option;
      return `${key}=${(key === "lowerdir" ? value!.split(":") : [value!]).map(path).join(":")}`;
    }),
  };
}

function blankCgroup(cgroup: CgroupPlan, path: (name: string) => string): CgroupPlan {
  const { into } = cgroup;
  return {
    ...cgroup,
    directories: cgroup.directories.map(path),
    join: cgroup.join.map(path),
    ...(into === undefined ? {} : { into: path(into) }),
    writes: cgroup.writes.map((write) => {
      const slash = write.file.lastIndexOf("/");
      return { ...write, file: `${path(write.file.slice(0, slash))}${write.file.slice(slash)}` };
    }),
    mounts: cgroup.mounts.map((mount) => ({
      ...mount,
      directory: path(mount.directory),
      ...(mount.withoutNamespace === undefined ? {} : { withoutNamespace: path(mount.withoutNamespace) }),
    })),
  };
}

/** What a plan of blanked input is encoded to, with its blanks; undefined where a stand-in was taken apart. */
export function templateOf(tape: Tape, names: readonly string[]): Template | undefined {
  const encoded = tape.encode();
  const data = dataOf(encoded);
  const standIns = new RegExp(`/?${MARK}([0-9a-z]{2})${FILL}*`, "g");
  const blanks: Template["blanks"] = [];
  for (const [text, { block }] of tape.texts()) {
    if (!text.includes(MARK)) continue;
    let marks = text.split(MARK).length - 1;
    for (const { 0: standIn, 1: digits, index } of text.matchAll(standIns)) {
      const name = Number.parseInt(digits!, 36);
      // A slash before it may be another's end.
      const slash = standIn.startsWith("/") && !names[name]?.startsWith("/") ? 1 : 0;
      if (names[name] === undefined || utf8(names[name]).length !== standIn.length - slash) return undefined;
      blanks.push([name, data + block + utf8(text.slice(0, index)).length + slash]);
      marks--;
    }
    if (marks !== 0) return undefined;
  }
  return { encoded, blanks };
}

/** The tape for the container whose names these are: the template's own memory, until it is filled in for the next. */
export function fillIn({ encoded, blanks }: Template, names: readonly string[]): Uint8Array {
  for (const [name, at] of blanks) encoder.encodeInto(names[name]!, encoded.subarray(at));
  return encoded;
}
