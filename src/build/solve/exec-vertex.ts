// An exec operation as a vertex: what its key is made of, its mounts, what becomes of its outputs.
import { type ExecOp, MountType, NetMode, SecurityMode } from "../../gen/pb_pb.ts";
import { permissionDenied, unimplemented } from "../../lib/errors.ts";
import type { Vertex } from "../graph/llb.ts";
import type { KeyPart } from "../progress.ts";
import type { Outputs } from "./cache.ts";
import { ExitError, execute } from "./exec.ts";
import { pathDigest } from "./files.ts";
import { execParts } from "./keys.ts";
import { outputMounts, prepareMounts } from "./mounts.ts";
import { contentName, isUnknown, type Solved, type VertexTools } from "./vertex.ts";
import { EMPTY, type Tree } from "./workspace.ts";

/** Runs a command, or finds what it made before. PermissionDenied, Unimplemented, ExitError. */
export async function execVertex(parts: VertexTools, vertex: Vertex, op: ExecOp): Promise<Solved> {
  const { options, workspace, inputsOf, cachedOr, nameOf, watched } = parts;
  const { host, build, graph, signal } = options;
  const denied = [
    ...(op.security === SecurityMode.INSECURE ? ["security.insecure"] : []),
    ...(op.network === NetMode.HOST ? ["network.host"] : []),
  ].find((each) => !options.entitlements.has(each));
  if (denied) throw permissionDenied(`${denied} is not allowed`);
  const device = op.cdiDevices.find(({ optional }) => !optional);
  if (device) throw unimplemented(`CDI devices of build steps (${device.name})`);
  const inputs = await inputsOf(vertex);
  signal.throwIfAborted();
  const inputOf = (index: bigint): Tree => (index < 0n ? EMPTY : inputs[Number(index)]!);
  const outputs = outputMounts(op.mounts);
  const base = execParts(op);
  /** Whether only what is at the selector counts: nothing of it is changed. */
  const borrowed = (mount: ExecOp["mounts"][number]) => mount.mountType === MountType.BIND && mount.output < 0n && mount.dest !== "/";
  const keyParts = async (byContent: boolean): Promise<KeyPart[]> => {
    const found: KeyPart[] = [];
    for (const mount of op.mounts) {
      if (mount.input < 0n || mount.mountType === MountType.CACHE) continue;
      const tree = inputOf(mount.input);
      const name = mount.dest === "/" ? "root file system" : `content of mount ${mount.dest}`;
      const looked = isUnknown(tree) || (byContent && borrowed(mount));
      const value = looked
        ? await workspace.reading(tree, (open) => pathDigest(borrowed(mount) ? mount.selector || "/" : "/", open, true))
        : contentName(tree);
      found.push({ name, value });
    }
    return [...base, ...found];
  };
  const several = op.mounts.some((mount) => borrowed(mount) && mount.input >= 0n && !isUnknown(inputOf(mount.input)));
  const keys = several ? [() => keyParts(false), () => keyParts(true)] : [() => keyParts(false)];
  const parentOf = (output: number): Tree => {
    const tree = inputOf(op.mounts[outputs.get(output)!]!.input);
    return tree.directory === undefined ? tree : EMPTY;
  };
  return cachedOr(vertex, "regular", keys, [...outputs.keys()], parentOf, async () => {
    const watch = watched(vertex);
    const step = await prepareMounts(op, { host, build, workspace, caches: options.caches, inputOf, signal });
    try {
      try {
        await execute({
          host,
          build,
          op,
          resources: graph.metadata.get(vertex.digest)?.linuxResources,
          step,
          onOutput: watch.log,
          onStart: (id) => options.onContainer(vertex.digest, id),
          later: parts.later,
          signal,
        });
      } catch (error) {
        if (options.keepFailed && error instanceof ExitError) {
          const mounts: (Tree | undefined)[] = op.mounts.map(() => undefined);
          for (const [i, fork] of step.forks) mounts[i] = await fork.keep();
          for (const [i, mount] of op.mounts.entries())
            if (!mounts[i] && mount.mountType === MountType.BIND) mounts[i] = inputOf(mount.input);
          parts.failed(error, { vertex: vertex.digest, op, mounts, inputs });
        }
        throw error;
      }
      const made: Outputs = new Map();
      for (const [index, at] of outputs) {
        const fork = step.forks.get(at);
        const tree = inputOf(op.mounts[at]!.input);
        // what can't be written to comes out as it went in
        if (fork) made.set(index, await fork.commit(nameOf(vertex)));
        else made.set(index, { chainId: tree.chainId, layers: [] });
      }
      return made;
    } finally {
      await step.release();
    }
  });
}
