// A container beside a build, for people and frontends that want to look around: in what a step left when it failed, or in any trees.
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { type ExecOp, ExecOpSchema, MountSchema } from "../../gen/pb_pb.ts";
import { failedPrecondition, invalidArgument, isKind, messageOf } from "../../lib/errors.ts";
import { binding, check, close, EPOLLOUT, O_NONBLOCK, O_RDWR, open, SYS, watch, write } from "../../linux/index.ts";
import type { PreparedStep } from "../host.ts";
import type { ProcessRequest, SessionContainer, StepProcess } from "../session.ts";
import { BUILD_LABEL, specMessage, stepRequest } from "./exec.ts";
import { type MountOptions, prepareMounts, type StepMounts } from "./mounts.ts";
import { openStepOutput } from "./output.ts";
import { ownerOf } from "./owner.ts";
import type { Tree } from "./workspace.ts";

const S_IFIFO = 0o010000;
const SIGNALS: Record<string, number> = {
  HUP: 1,
  INT: 2,
  QUIT: 3,
  KILL: 9,
  USR1: 10,
  USR2: 12,
  TERM: 15,
  CONT: 18,
  STOP: 19,
  TSTP: 20,
  WINCH: 28,
};

function signalNumber(name: string): number {
  const number = SIGNALS[name.toUpperCase().replace(/^SIG/, "")] ?? (/^\d{1,2}$/.test(name) ? Number(name) : undefined);
  if (number === undefined) throw invalidArgument(`invalid signal ${name}`);
  return number;
}

/** The way into a process: a FIFO that never blocks us. */
function openInput(path: string, onClosed: () => void) {
  check(binding.syscall(SYS.mknod, path, S_IFIFO | 0o600, 0), `mkfifo ${path}`);
  // For both ways, so that opening waits for no one.
  const fd = open(path, O_RDWR | O_NONBLOCK);
  let over = false;
  const shut = () => {
    if (over) return;
    over = true;
    close(fd);
    rmSync(path, { force: true });
  };
  let chain = Promise.resolve();
  const room = () =>
    new Promise<void>((resolve) => {
      const watching = watch(fd, EPOLLOUT, () => {
        watching.close();
        resolve();
      });
    });
  return {
    path,
    write(bytes: Uint8Array): Promise<void> {
      chain = chain.then(async () => {
        for (let at = 0; at < bytes.length && !over; ) {
          const n = write(fd, bytes.subarray(at));
          if (n === undefined) await room();
          else at += n;
        }
      });
      return chain;
    },
    end() {
      void chain.then(() => {
        if (over) return;
        shut();
        onClosed();
      });
    },
    shut,
  };
}

export interface ContainerOptions extends Omit<MountOptions, "inputOf"> {
  /** The whole host, for the network and the specification. */
  build: MountOptions["build"] & { prepareStep(request: ReturnType<typeof stepRequest>): Promise<PreparedStep> };
  /** Mounts, network, security, host names; the first process says the rest. Inputs are indexes of `trees`. */
  op: ExecOp;
  trees: readonly (Tree | undefined)[];
}

export async function createContainer(options: ContainerOptions): Promise<SessionContainer> {
  const { host, build, trees } = options;
  const { tasks, containers, snapshotter } = host.manager;
  // What processes write is lost with the container.
  const mounts = options.op.mounts.map((mount, i) => create(MountSchema, { ...mount, input: trees[i] ? BigInt(i) : -1n, output: -1n }));
  const op = create(ExecOpSchema, { ...options.op, mounts });
  const inputOf = (index: bigint): Tree => trees[Number(index)]!;
  const none = { layers: [], chainId: "", directory: undefined, digest: "", fetch: undefined, snapshot: undefined };
  const step: StepMounts = await prepareMounts(op, { ...options, inputOf: (index) => (index < 0n ? none : inputOf(index)) });
  const id = randomBytes(32).toString("hex");
  mkdirSync(host.runDir, { recursive: true, mode: 0o700 });
  const scratch = mkdtempSync(join(host.runDir, "container-"));
  const undo: (() => unknown)[] = [() => step.release(), () => rmSync(scratch, { recursive: true, force: true })];
  let prepared: PreparedStep | undefined;
  let processes = 0;
  const ends = new Set<Promise<unknown>>();

  async function start(request: ProcessRequest, execId: string): Promise<StepProcess> {
    const place = mkdtempSync(join(scratch, "io-"));
    const input = request.input
      ? openInput(join(place, "stdin"), () => void tasks.closeIO({ containerId: id, execId, stdin: true }).catch(() => {}))
      : undefined;
    const stdout = openStepOutput(join(place, "stdout"), (bytes) => request.onOutput(1, bytes));
    const stderr = request.terminal ? undefined : openStepOutput(join(place, "stderr"), (bytes) => request.onOutput(2, bytes));
    const io = { stdin: input?.path ?? "", stdout: stdout.path, stderr: stderr?.path ?? "", terminal: request.terminal };
    const shut = () => {
      input?.shut();
      stdout.close();
      stderr?.close();
      rmSync(place, { recursive: true, force: true });
    };
    try {
      if (execId === "") {
        const { pid } = await tasks.create({ containerId: id, rootfs: step.rootfs, ...io });
        undo.push(async () => {
          await tasks.kill({ containerId: id, signal: 9, all: true }).catch(() => {});
          await tasks.wait({ containerId: id }).catch(() => {});
          await tasks.delete({ containerId: id });
        });
        await prepared!.started(pid);
      } else {
        const spec = specMessage(await processSpec(request));
        await tasks.exec({ containerId: id, execId, spec, ...io });
      }
      const exit = tasks.wait({ containerId: id, execId });
      exit.catch(() => {});
      await tasks.start({ containerId: id, execId });
      if (request.terminal && request.size)
        await tasks.resizePty({ containerId: id, execId, width: request.size.columns, height: request.size.rows }).catch(() => {});
      const exited = exit.then(async ({ exitStatus }) => {
        await Promise.all([stdout.drained(), stderr?.drained()]);
        shut();
        if (execId !== "") await tasks.deleteProcess({ containerId: id, execId }).catch(() => {});
        return exitStatus;
      });
      exited.catch(() => {});
      ends.add(exited);
      return {
        exited,
        write: async (bytes) => {
          if (!input) throw failedPrecondition("the process takes no input");
          await input.write(bytes);
        },
        closeInput: () => input?.end(),
        resize: async (rows, columns) => void (await tasks.resizePty({ containerId: id, execId, width: columns, height: rows })),
        signal: async (name) => {
          try {
            await tasks.kill({ containerId: id, execId, signal: signalNumber(name) });
          } catch (error) {
            if (!isKind(error, "NotFound")) throw error;
          }
        },
      };
    } catch (error) {
      shut();
      throw error;
    }
  }

  /** A further process: as the first, but for what the request says. */
  async function processSpec(request: ProcessRequest): Promise<object> {
    const first = (prepared!.spec as { process?: Record<string, unknown> }).process ?? {};
    const env = [...request.env, ...(await secretsOf(request))];
    const user = request.user === "" ? {} : { user: await userOf(request.user) };
    return { ...first, ...user, args: request.args, env, cwd: request.cwd || "/", terminal: request.terminal };
  }

  async function userOf(text: string): Promise<{ uid: number; gid: number }> {
    const [name = "", group = ""] = text.split(":");
    const part = (each: string) =>
      /^\d+$/.test(each) ? { user: { case: "byID", value: Number(each) } } : { user: { case: "byName", value: { name: each } } };
    const { openDetached } = await import("../../containerd/index.ts");
    const root = openDetached(step.rootfs, { readOnly: true });
    try {
      return ownerOf({ ...(name ? { user: part(name) } : {}), ...(group ? { group: part(group) } : {}) } as never, root);
    } finally {
      close(root);
    }
  }

  async function secretsOf(request: ProcessRequest): Promise<string[]> {
    const found: string[] = [];
    for (const { id: secret, name, optional } of request.secretEnv ?? []) {
      const bytes = await build.secret?.(secret);
      if (bytes) found.push(`${name || secret}=${Buffer.from(bytes).toString("utf8")}`);
      else if (!optional) throw failedPrecondition(`secret ${secret}: not found`);
    }
    return found;
  }

  const release = async () => {
    for (const each of undo.splice(0).reverse()) {
      try {
        await each();
      } catch (error) {
        host.log("debug", `after container ${id} of a build: ${messageOf(error)}`);
      }
    }
    await Promise.allSettled(ends);
  };

  return {
    async run(request) {
      if (request.args.length === 0) throw invalidArgument("a process needs a command");
      if (processes++ > 0) {
        if (!prepared) throw failedPrecondition("the container's first process was not started");
        return start(request, randomBytes(16).toString("hex"));
      }
      const meta = {
        ...op.meta!,
        args: request.args,
        env: [...request.env, ...(await secretsOf(request))],
        cwd: request.cwd,
        user: request.user,
      };
      const asked = { ...op, meta } as ExecOp;
      prepared = await build.prepareStep({
        ...stepRequest(id, asked, step),
        insecure: request.insecure ?? false,
        terminal: request.terminal,
      });
      const { close: closeStep, runtime } = prepared;
      undo.push(() => closeStep());
      const spec = prepared.spec as { process?: { terminal?: boolean }; root?: object };
      if (spec.process && request.terminal) spec.process.terminal = true;
      const { key: snapshotKey } = [...step.forks.values()].find((fork) => fork.mounts === step.rootfs)!;
      await containers.create({
        container: {
          id,
          labels: { [BUILD_LABEL]: "step" },
          runtime: { name: runtime.name, ...(runtime.options ? { options: runtime.options } : {}) },
          spec: specMessage(spec),
          snapshotter,
          snapshotKey,
        },
      });
      undo.push(() => containers.delete({ id }));
      return start(request, "");
    },
    release,
  };
}
