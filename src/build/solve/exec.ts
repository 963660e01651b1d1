// An exec operation: an ordinary container of the manager on the step's snapshot.
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { type ExecOp, type LinuxResources, NetMode, SecurityMode } from "../../gen/pb_pb.ts";
import { Failure, messageOf } from "../../lib/errors.ts";
import type { BuilderHost, BuildHost, StepRequest } from "../host.ts";
import type { StepMounts } from "./mounts.ts";
import { openStepOutput } from "./output.ts";
import { removeMountPoints } from "./stubs.ts";

const SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/** Marks containers of builds, so that what a killed engine left can be found. */
export const BUILD_LABEL = "jubako.io/build";

/** The command ended with a status that is not one of those that are right. */
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
  resources: LinuxResources | undefined;
  step: StepMounts;
  onOutput(stream: 1 | 2, bytes: Uint8Array): void;
  onStart(containerId: string): void;
  /** What is left to do when the command has ended: its container goes while others go on. */
  later(work: Promise<void>): void;
  signal: AbortSignal;
}

const PROXIES = [
  ["httpProxy", "http_proxy"],
  ["httpsProxy", "https_proxy"],
  ["ftpProxy", "ftp_proxy"],
  ["noProxy", "no_proxy"],
  ["allProxy", "all_proxy"],
] as const;

function proxyEnv(op: ExecOp): string[] {
  const proxies = op.meta?.proxyEnv;
  return PROXIES.flatMap(([field, name]) =>
    proxies?.[field] ? [`${name.toUpperCase()}=${proxies[field]}`, `${name}=${proxies[field]}`] : [],
  );
}

export const networkOf = (mode: NetMode): string => (mode === NetMode.HOST ? "host" : mode === NetMode.NONE ? "none" : "default");

/** What is asked of the host for a step. */
export function stepRequest(id: string, op: ExecOp, step: StepMounts, resources?: LinuxResources): StepRequest {
  const meta = op.meta!;
  const numbers = (["memory", "memorySwap", "cpuShares", "cpuPeriod", "cpuQuota"] as const).flatMap((name) =>
    resources?.[name] ? [[name, Number(resources[name])] as const] : [],
  );
  const sets = (["cpusetCpus", "cpusetMems"] as const).flatMap((name) => (resources?.[name] ? [[name, resources[name]] as const] : []));
  return {
    id,
    args: meta.args,
    env: [...proxyEnv(op), ...meta.env, ...step.secretEnv],
    cwd: meta.cwd || "/",
    user: meta.user,
    network: networkOf(op.network),
    insecure: op.security === SecurityMode.INSECURE,
    hostname: meta.hostname,
    extraHosts: meta.extraHosts,
    ulimits: meta.ulimit,
    cgroupParent: meta.cgroupParent,
    resources: Object.fromEntries([...numbers, ...sets]),
    rootfs: step.rootfs,
    mounts: step.mounts,
  };
}

export const specMessage = (spec: object) => create(AnySchema, { typeUrl: SPEC_TYPE, value: Buffer.from(JSON.stringify(spec)) });

/** Runs the command to its end. ExitError where it failed. */
export async function execute(options: ExecOptions): Promise<void> {
  const { host, build, op, signal, step: prepared } = options;
  const { tasks, containers } = host.manager;
  const id = randomBytes(32).toString("hex");
  mkdirSync(host.runDir, { recursive: true, mode: 0o700 });
  const scratch = mkdtempSync(join(host.runDir, "step-"));
  const output = openStepOutput(join(scratch, "stdout"), (bytes) => options.onOutput(1, bytes));
  const undo: (() => unknown)[] = [() => rmSync(scratch, { recursive: true, force: true }), () => output.close()];
  let destinations: string[] = [];
  let started = false;
  try {
    const step = await build.prepareStep(stepRequest(id, op, prepared, options.resources));
    undo.push(() => step.close());
    if (prepared.readonlyRoot) Object.assign((step.spec as { root?: object }).root ?? {}, { readonly: true });
    destinations = (step.spec.mounts ?? []).map(({ destination }) => destination);
    signal.throwIfAborted();
    const { name, options: runtimeOptions } = step.runtime;
    const { key: snapshotKey } = [...prepared.forks.values()].find((fork) => fork.mounts === prepared.rootfs)!;
    await containers.create({
      container: {
        id,
        labels: { [BUILD_LABEL]: "step" },
        runtime: { name, ...(runtimeOptions ? { options: runtimeOptions } : {}) },
        spec: specMessage(step.spec),
        snapshotter: host.manager.snapshotter,
        snapshotKey,
      },
    });
    undo.push(() => containers.delete({ id }));
    const { pid } = await tasks.create({
      containerId: id,
      rootfs: prepared.rootfs,
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
      started = true;
      if (signal.aborted) stop();
      const { exitStatus } = await exit;
      await output.drained();
      signal.throwIfAborted();
      const valid = op.meta!.validExitCodes;
      if (valid.length === 0 ? exitStatus !== 0 : !valid.includes(exitStatus)) throw new ExitError(op.meta!.args, exitStatus);
    } finally {
      signal.removeEventListener("abort", stop);
    }
  } catch (error) {
    // What could not begin says which command it was.
    if (!started && error instanceof Error && !signal.aborted) Object.assign(error, { command: op.meta!.args });
    throw error;
  } finally {
    // Whatever ran is dead: with process 1 go all of its namespace.
    removeMountPoints(prepared.rootfs, [...destinations, "/dev/console", "/dev/pipes"]);
    const clean = async () => {
      for (const each of undo.reverse()) {
        try {
          await each();
        } catch (error) {
          host.log("debug", `after build step ${id}: ${messageOf(error)}`);
        }
      }
    };
    options.later(clean());
  }
}
