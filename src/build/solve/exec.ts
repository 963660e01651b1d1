// RUN: an ordinary container of the manager on the step's snapshot.
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmdirSync,
  rmSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join, posix } from "node:path";
import { create } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { Failure, messageOf } from "../../lib/errors.ts";
import { digestOf, hexOf } from "../../oci/index.ts";
import type { ExecMount, ExecOp } from "../graph/llb.ts";
import type { BuilderHost, BuildHost, StepRequest } from "../host.ts";
import { openStepOutput } from "./output.ts";

const SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/** Marks containers of builds, so that what a killed engine left can be found. */
export const BUILD_LABEL = "jubako.io/build";

export interface SnapshotMount {
  type: string;
  source: string;
  options: string[];
}

/** The command ended with a status that is not zero. */
export class ExitError extends Failure {
  readonly status: number;
  readonly args: string[];
  constructor(args: string[], status: number) {
    super("Unknown", `The command '${args.join(" ")}' returned a non-zero code: ${status}`);
    this.status = status;
    this.args = args;
  }
}

export interface ExecOptions {
  host: BuilderHost;
  build: BuildHost;
  op: ExecOp;
  snapshotKey: string;
  mounts: SnapshotMount[];
  /** Host directory, or mount, of what input N is at `selector`. */
  bindOf(mount: ExecMount): Promise<{ type: string; source: string; options: string[] }>;
  onOutput(bytes: Uint8Array): void;
  onStart(containerId: string): void;
  signal: AbortSignal;
}

/** Directories of a snapshot: the one that takes changes, and those below. */
function directoriesOf(mounts: readonly SnapshotMount[]): { upper: string | undefined; lower: string[] } {
  const [mount] = mounts;
  const option = (name: string) => mount?.options.find((each) => each.startsWith(`${name}=`))?.slice(name.length + 1);
  if (mount?.type !== "overlay") return { upper: mount?.source, lower: [] };
  return { upper: option("upperdir"), lower: option("lowerdir")?.split(":") ?? [] };
}

const lstat = (path: string) => lstatSync(path, { throwIfNoEntry: false });
const isWhiteout = (stat: { isCharacterDevice(): boolean; rdev: number }) => stat.isCharacterDevice() && stat.rdev === 0;

/** Whether directories (topmost first) show something at a path; no link is followed. */
function shows(layers: readonly string[], parts: readonly string[]): boolean {
  for (const layer of layers) {
    for (let depth = 1; ; depth++) {
      const stat = lstat([layer, ...parts.slice(0, depth)].join("/"));
      if (!stat) break;
      if (isWhiteout(stat)) return false;
      if (depth === parts.length) return true;
      if (!stat.isDirectory()) return false;
    }
  }
  return false;
}

/** Whether every component on the way to a path is a real directory, so that working on it can't lead elsewhere. */
function isStraight(root: string, parts: readonly string[]): boolean {
  return parts.slice(0, -1).every((_, i) => lstat([root, ...parts.slice(0, i + 1)].join("/"))?.isDirectory() === true);
}

/**
 * What the runtime makes to mount upon is no change of the command's: empty files and directories that were not there before go away again, and with them the
 * parents that hold nothing else.
 */
function removeMountPoints(mounts: readonly SnapshotMount[], destinations: readonly string[]): void {
  const { upper, lower } = directoriesOf(mounts);
  if (upper === undefined) return;
  const deepest = destinations.map((path) => posix.join("/", path).slice(1).split("/").filter(Boolean)).sort((a, b) => b.length - a.length);
  for (const parts of deepest) {
    if (parts.length === 0 || !isStraight(upper, parts)) continue;
    const path = [upper, ...parts].join("/");
    const stat = lstat(path);
    if (!stat || stat.isSymbolicLink()) continue;
    const empty = stat.isDirectory() ? readdirSync(path).length === 0 : stat.isFile() && stat.size === 0;
    if (!empty) continue;
    if (shows(lower, parts) && !stat.isDirectory()) continue;
    if (shows(lower, parts) && !sameAsBelow(lower, parts, stat)) continue;
    if (stat.isDirectory()) rmdirSync(path);
    else unlinkSync(path);
    for (let depth = parts.length - 1; depth > 0; depth--) {
      const above = parts.slice(0, depth);
      const directory = [upper, ...above].join("/");
      if (readdirSync(directory).length > 0) {
        const below = lower.map((layer) => lstat([layer, ...above].join("/"))).find(Boolean);
        // its time is that of our own removal
        if (below) utimesSync(directory, below.atime, below.mtime);
        break;
      }
      const own = lstat(directory);
      if (shows(lower, above) && !(own && sameAsBelow(lower, above, own))) break;
      rmdirSync(directory);
    }
  }
}

/** Whether a directory differs from the one below in nothing but its times. */
function sameAsBelow(lower: readonly string[], parts: readonly string[], stat: { mode: number; uid: number; gid: number }): boolean {
  const below = lower.map((layer) => lstat([layer, ...parts].join("/"))).find(Boolean);
  return below?.isDirectory() === true && below.mode === stat.mode && below.uid === stat.uid && below.gid === stat.gid;
}

async function mountsOf(options: ExecOptions, scratch: string): Promise<StepRequest["mounts"]> {
  const { op, host } = options;
  const mounts: StepRequest["mounts"] = [];
  for (const mount of op.mounts) {
    const { destination } = mount;
    if (mount.type === "tmpfs") {
      const size = mount.size > 0 ? [`size=${mount.size}`] : [];
      mounts.push({ type: "tmpfs", source: "tmpfs", destination, options: ["nosuid", "nodev", `mode=${mount.mode.toString(8)}`, ...size] });
    } else if (mount.type === "cache") {
      const source = join(host.dataDir, "mounts", hexOf(digestOf(mount.id)));
      const made = mkdirSync(source, { recursive: true, mode: 0o700 });
      if (made !== undefined) {
        chmodSync(source, mount.mode);
        if (mount.uid || mount.gid) (await import("node:fs")).chownSync(source, mount.uid, mount.gid);
      }
      mounts.push({ type: "bind", source, destination, options: ["rbind", "rprivate", ...(mount.readonly ? ["ro"] : [])] });
    } else {
      const { type, source, options: how } = await options.bindOf(mount);
      mounts.push({ type, source, destination, options: [...how, ...(mount.readonly ? ["ro"] : [])] });
    }
  }
  for (const [i, { path, content }] of op.scripts.entries()) {
    const source = join(scratch, `script-${i}`);
    writeFileSync(source, content, { mode: 0o755 });
    chmodSync(source, 0o755);
    mounts.push({ type: "bind", source, destination: path, options: ["rbind", "rprivate", "ro"] });
  }
  return mounts;
}

/** Runs the command to its end. ExitError where it failed. */
export async function execute(options: ExecOptions): Promise<void> {
  const { host, build, op, signal, snapshotKey } = options;
  const { tasks, containers } = host.manager;
  const id = randomBytes(32).toString("hex");
  mkdirSync(host.runDir, { recursive: true, mode: 0o700 });
  const scratch = mkdtempSync(join(host.runDir, "step-"));
  const output = openStepOutput(join(scratch, "output"), options.onOutput);
  const undo: (() => unknown)[] = [() => rmSync(scratch, { recursive: true, force: true }), () => output.close()];
  let destinations: string[] = [];
  try {
    const step = await build.prepareStep({
      id,
      args: op.meta.args,
      env: [...op.proxyEnv, ...op.meta.env],
      cwd: op.meta.cwd,
      user: op.meta.user,
      network: op.network,
      insecure: op.security === "insecure",
      rootfs: options.mounts,
      mounts: await mountsOf(options, scratch),
    });
    undo.push(() => step.close());
    destinations = (step.spec.mounts ?? []).map(({ destination }) => destination);
    signal.throwIfAborted();
    const { name, options: runtimeOptions } = step.runtime;
    await containers.create({
      container: {
        id,
        labels: { [BUILD_LABEL]: "step" },
        runtime: { name, ...(runtimeOptions ? { options: runtimeOptions } : {}) },
        spec: create(AnySchema, { typeUrl: SPEC_TYPE, value: Buffer.from(JSON.stringify(step.spec)) }),
        snapshotter: host.manager.snapshotter,
        snapshotKey,
      },
    });
    undo.push(() => containers.delete({ id }));
    const { pid } = await tasks.create({
      containerId: id,
      rootfs: options.mounts,
      stdin: "",
      stdout: output.path,
      stderr: output.path,
      terminal: false,
    });
    undo.push(() => tasks.delete({ containerId: id }));
    await step.started(pid);
    const exit = tasks.wait({ containerId: id });
    exit.catch(() => {});
    const stop = () => void tasks.kill({ containerId: id, signal: 9, all: true }).catch(() => {});
    signal.addEventListener("abort", stop, { once: true });
    try {
      options.onStart(id);
      try {
        await tasks.start({ containerId: id });
      } catch (error) {
        stop();
        throw error;
      }
      if (signal.aborted) stop();
      const { exitStatus } = await exit;
      await output.drained();
      signal.throwIfAborted();
      if (exitStatus !== 0) throw new ExitError(op.meta.args, exitStatus);
    } finally {
      signal.removeEventListener("abort", stop);
    }
  } finally {
    for (const each of undo.reverse()) {
      try {
        await each();
      } catch (error) {
        host.log("debug", `after build step ${id}: ${messageOf(error)}`);
      }
    }
  }
  removeMountPoints(options.mounts, [...destinations, "/dev/console", "/dev/pipes"]);
}
