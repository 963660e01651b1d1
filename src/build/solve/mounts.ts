// The mounts of an exec operation: what each is made of, before the command runs, and what becomes of it after.
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join, posix } from "node:path";
import { openDetached } from "../../containerd/index.ts";
import { type ExecOp, type Mount, MountType } from "../../gen/pb_pb.ts";
import { failedPrecondition, invalidArgument, notFound } from "../../lib/errors.ts";
import { close, O_DIRECTORY, O_RDONLY, open, openat2, RESOLVE_IN_ROOT } from "../../linux/index.ts";
import { files } from "../../oci/index.ts";
import type { BuilderHost, BuildHost, StepRequest } from "../host.ts";
import type { MountCaches } from "./caches.ts";
import { copySource } from "./copy.ts";
import { borrowed, layersOf, owned } from "./stack.ts";
import { EMPTY, type Fork, type SnapshotMount, type Tree, type Workspace } from "./workspace.ts";

export interface StepMounts {
  /** Of the snapshot that is the root. */
  rootfs: SnapshotMount[];
  readonlyRoot: boolean;
  mounts: StepRequest["mounts"];
  /** Variables whose values are secrets. */
  secretEnv: string[];
  /** By index of the mount: what takes its changes. */
  forks: Map<number, Fork>;
  /** Lets go of all but what was committed. */
  release(): Promise<void>;
}

export interface MountOptions {
  host: BuilderHost;
  build: Pick<BuildHost, "secret" | "ssh">;
  workspace: Workspace;
  caches: MountCaches;
  /** What a mount's input is. */
  inputOf(index: bigint): Tree;
  signal: AbortSignal;
}

/** Which mounts an operation's outputs come from, by index of the output. */
export function outputMounts(mounts: readonly Mount[]): Map<number, number> {
  const found = new Map<number, number>();
  for (const [i, { output }] of mounts.entries()) if (output >= 0n) found.set(Number(output), i);
  return found;
}

const noSession = (what: string) => failedPrecondition(`${what} needs a client with a BuildKit session, which this door does not have`);

export async function prepareMounts(
  op: Pick<ExecOp, "mounts" | "secretenv">,
  { host, build, workspace, caches, inputOf, signal }: MountOptions,
): Promise<StepMounts> {
  const undo: (() => unknown)[] = [];
  const forks = new Map<number, Fork>();
  const release = async () => {
    for (const each of undo.splice(0).reverse()) {
      try {
        await each();
      } catch (error) {
        host.log("debug", `after a build step: ${error}`);
      }
    }
  };
  const temporary = (base: string): (() => string) => {
    let made: string | undefined;
    return () => {
      if (made === undefined) {
        mkdirSync(base, { recursive: true, mode: 0o700 });
        const place = mkdtempSync(join(base, "bind-"));
        made = place;
        undo.push(() => rm(place, { recursive: true, force: true }));
      }
      return made;
    };
  };
  /** For large things, and for small ones that should not reach a disk. */
  const scratch = temporary(host.dataDir);
  const secrets = temporary(host.runDir);

  const forked = async (i: number, tree: Tree): Promise<Fork> => {
    const fork = await workspace.fork(tree);
    undo.push(() => fork.drop());
    forks.set(i, fork);
    return fork;
  };

  async function borrow(tree: Tree, mount: Mount, destination: string): Promise<StepRequest["mounts"][number]> {
    const using = (layers: string[], root: number) =>
      borrowed({ layers, root }, mount.selector || "/", destination, mount.readonly, scratch);
    if (tree.directory !== undefined || (tree.chainId === "" && tree.snapshot === undefined)) {
      await tree.fetch?.();
      const directory = tree.directory ?? mkdtempSync(join(scratch(), "empty-"));
      const root = open(directory, O_RDONLY | O_DIRECTORY);
      try {
        return await using([directory], root);
      } finally {
        close(root);
      }
    }
    // The view must last as long as the step.
    const ready = Promise.withResolvers<SnapshotMount[]>();
    const over = Promise.withResolvers<void>();
    const viewed = workspace.viewing(tree, (found) => {
      ready.resolve(found);
      return over.promise;
    });
    viewed.catch(ready.reject);
    undo.push(() => {
      over.resolve();
      return viewed;
    });
    const mounts = await ready.promise;
    const tmp = openDetached(mounts, { readOnly: true });
    try {
      const root = openat2(tmp, ".", O_RDONLY | O_DIRECTORY, { resolve: RESOLVE_IN_ROOT });
      try {
        return await using(layersOf(mounts).lower, root);
      } finally {
        close(root);
      }
    } finally {
      close(tmp);
    }
  }

  async function cacheOf(mount: Mount, destination: string): Promise<StepRequest["mounts"][number]> {
    const { ID = "", sharing = 0 } = mount.cacheOpt ?? {};
    if (ID === "") throw invalidArgument("a cache mount has no id");
    const base = inputOf(mount.input);
    const cache = await caches.take(ID, base === EMPTY ? "" : base.chainId || base.digest, sharing, signal);
    undo.push(() => cache.release());
    const place = join(cache.directory, "files");
    if (!existsSync(place)) {
      mkdirSync(place, { mode: 0o755 });
      chmodSync(place, 0o755);
      if (base !== EMPTY) {
        await workspace.reading(base, async ({ root }) => {
          const into = open(place, O_RDONLY | O_DIRECTORY);
          try {
            await copySource(root, { path: "", directory: true }, into, undefined, {});
          } finally {
            close(into);
          }
        });
      }
    }
    const selector = (mount.selector || "/").replace(/^\/+/, "");
    const root = open(place, O_RDONLY | O_DIRECTORY);
    try {
      const fd = files.openIn(root, Buffer.from(selector || ".").toString("latin1"), O_RDONLY | O_DIRECTORY, RESOLVE_IN_ROOT);
      if (fd < 0) throw notFound(`cache mount ${ID}: ${mount.selector}: not found`);
      const source = files.shown(files.readLink(-100, `/proc/self/fd/${fd}`));
      close(fd);
      return { type: "bind", source, destination, options: ["rbind", "rprivate", ...(mount.readonly ? ["ro"] : [])] };
    } finally {
      close(root);
    }
  }

  async function secretOf(id: string, optional: boolean): Promise<Uint8Array | undefined> {
    if (id === "") throw invalidArgument("a secret has no id");
    if (!build.secret && !optional) throw noSession(`secret ${id}`);
    const bytes = await build.secret?.(id);
    if (bytes === undefined && !optional) throw notFound(`secret ${id}: not found`);
    return bytes;
  }

  async function mountOf(mount: Mount, i: number): Promise<StepRequest["mounts"][number] | undefined> {
    const destination = posix.resolve("/", mount.dest);
    switch (mount.mountType) {
      case MountType.BIND:
        if (mount.output >= 0n && !mount.readonly)
          return owned((await forked(i, inputOf(mount.input))).mounts, mount.selector, destination);
        return borrow(inputOf(mount.input), mount, destination);
      case MountType.TMPFS: {
        const size = mount.TmpfsOpt?.size ?? 0n;
        const options = ["nosuid", "nodev", "mode=1777", ...(size > 0n ? [`size=${size}`] : [])];
        return { type: "tmpfs", source: "tmpfs", destination, options };
      }
      case MountType.CACHE:
        return cacheOf(mount, destination);
      case MountType.SECRET: {
        const { ID = "", uid = 0, gid = 0, mode = 0o400, optional = false } = mount.secretOpt ?? {};
        const bytes = await secretOf(ID, optional);
        if (!bytes) return undefined;
        const source = join(secrets(), `secret-${i}`);
        writeFileSync(source, bytes, { mode: 0o600, flag: "wx" });
        undo.push(() => rmSync(source, { force: true }));
        chownSync(source, uid, gid);
        chmodSync(source, mode & 0o777);
        return { type: "bind", source, destination, options: ["rbind", "rprivate", "ro", "nodev", "nosuid", "noexec"] };
      }
      case MountType.SSH: {
        const { ID = "", uid = 0, gid = 0, mode = 0o600, optional = false } = mount.SSHOpt ?? {};
        const agent = await build.ssh?.(ID || "default");
        if (!agent) {
          if (optional) return undefined;
          if (!build.ssh) throw noSession(`ssh agent ${ID || "default"}`);
          throw notFound(`no SSH key "${ID || "default"}" forwarded from the client`);
        }
        undo.push(() => agent.release());
        chownSync(agent.path, uid, gid);
        chmodSync(agent.path, mode & 0o777);
        return { type: "bind", source: agent.path, destination, options: ["rbind", "rprivate"] };
      }
      default:
        throw invalidArgument(`mount type ${mount.mountType} of ${mount.dest} is not known`);
    }
  }

  try {
    const at = op.mounts.findIndex(({ dest }) => posix.resolve("/", dest) === "/");
    const root = op.mounts[at];
    if (!root) throw invalidArgument("exec op has no root mount");
    if (root.mountType !== MountType.BIND || (root.selector !== "" && posix.resolve("/", root.selector) !== "/"))
      throw invalidArgument("the root mount of an exec op must be a whole tree");
    const { mounts: rootfs } = await forked(at, inputOf(root.input));
    const mounts: StepRequest["mounts"] = [];
    // What lies above comes first.
    const depth = ({ dest }: Mount) => posix.resolve("/", dest).split("/").length;
    const ordered = [...op.mounts.entries()].filter(([i]) => i !== at).sort(([, a], [, b]) => depth(a) - depth(b));
    for (const [i, mount] of ordered) {
      const made = await mountOf(mount, i);
      if (made) mounts.push(made);
    }
    const secretEnv: string[] = [];
    for (const { ID, name, optional } of op.secretenv) {
      const bytes = await secretOf(ID, optional);
      if (bytes) secretEnv.push(`${name || ID}=${Buffer.from(bytes).toString("utf8")}`);
    }
    return { rootfs, readonlyRoot: root.readonly, mounts, secretEnv, forks, release };
  } catch (error) {
    await release();
    throw error;
  }
}
