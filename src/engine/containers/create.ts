// POST /containers/create: from a request to a record, with a snapshot to run in. All or nothing.
import { randomBytes } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { availableParallelism, hostname } from "node:os";
import { invalidArgument, notFound } from "../../lib/errors.ts";
import { span } from "../../trace/index.ts";
import type { ContainerRecord, ImageRecord } from "../context.ts";
import { checkSettings } from "./check.ts";
import { type Core, newState, now, publish } from "./core.ts";
import { isCgroupV2, swapLimit } from "./host.ts";
import { randomName } from "./names.ts";
import { type CreateRequest, mergeWithImage } from "./settings.ts";

const NAME = /^\/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

/** Keeps a snapshot from a manager's garbage collection, and says whose it is. */
export const SNAPSHOT_OWNER = "jubako.io/container";

export function newId(book: Core["book"]): string {
  for (;;) {
    const id = randomBytes(32).toString("hex");
    // An id of digits only in its short form could be taken for a number by those who parse it (as Docker avoids).
    if (!/^[0-9]{12}/.test(id) && !book.byId(id)) return id;
  }
}

export function checkName(name: string): string {
  if (!NAME.test(name)) throw invalidArgument(`Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`);
  return name.startsWith("/") ? name.slice(1) : name;
}

/** Creates a container; gives its record and what the user should be warned of. */
export async function createContainer(
  core: Core,
  name: string | undefined,
  request: CreateRequest,
  platform?: string,
): Promise<{ record: ContainerRecord; warnings: string[] }> {
  const { engine, book } = core;
  const wanted = name ? checkName(name) : undefined;
  const imageRef = request.config.Image ?? "";
  if (imageRef === "") throw invalidArgument("no image specified");
  const image = await engine.images.resolve(imageRef);
  if (platform) checkPlatform(platform, image, imageRef);
  const config = mergeWithImage(request.config, image.config);
  const hostConfig = request.hostConfig;
  const warnings = checkSettings(engine.config, config, hostConfig, availableParallelism(), isCgroupV2());
  if (hostConfig.Memory && !swapLimit()) {
    warnings.push("Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.");
    hostConfig.MemorySwap = -1;
  }
  for (const mode of [hostConfig.PidMode, hostConfig.IpcMode]) {
    if (mode?.startsWith("container:") && !isThere(core, mode.slice("container:".length))) {
      throw invalidArgument(`No such container: ${mode.slice("container:".length)}`);
    }
  }
  engine.io.checkLogConfig(hostConfig);

  const id = newId(book);
  const final = wanted ?? randomName(book.taken);
  book.reserve(final, id);
  const dir = `${engine.config.dataRoot}/containers/${id}`;
  config.Hostname ||= hostConfig.NetworkMode === "host" || hostConfig.UTSMode === "host" ? hostname() : id.slice(0, 12);
  config.Image = imageRef;
  const entrypoint = config.Entrypoint ?? [];
  const [path = "", ...args] = [...entrypoint, ...(config.Cmd ?? [])];
  const record: ContainerRecord = {
    id,
    name: final,
    created: now(),
    path,
    args,
    config,
    hostConfig,
    state: newState(),
    image: { id: image.id, ref: imageRef },
    snapshotKey: id,
    chainId: image.chainId,
    mounts: [],
    networks: {},
    networkSettings: {},
    restartCount: 0,
    stoppedByUser: false,
    logPath: hostConfig.LogConfig?.Type === "json-file" ? `${dir}/${id}-json.log` : "",
    dir,
    execIds: [],
  };
  // Made beside everything else: on a busy disk it takes a millisecond.
  const directory = mkdir(dir, { recursive: true, mode: 0o710 });
  directory.catch(() => {});
  let prepared = false;
  let added: (() => void) | undefined;
  try {
    await span("checks", {}, async () => {
      await engine.networks.check(record, request.endpoints);
      record.mounts = await engine.volumes.resolve(record, image);
    });
    await span("snapshot", {}, () =>
      engine.manager.snapshots.prepare({
        snapshotter: engine.manager.snapshotter,
        key: id,
        parent: image.chainId,
        labels: { "containerd.io/gc.root": record.created, [SNAPSHOT_OWNER]: id },
      }),
    );
    prepared = true;
    await directory;
    const entry = book.add(record);
    added = () => book.remove(entry);
    // It opens the container's root by its id.
    if (record.mounts.some((mount) => mount.Type === "volume")) await engine.volumes.populate(record);
  } catch (error) {
    added?.();
    book.release(final, id);
    await engine.volumes.release(record, true).catch(() => {});
    if (prepared) await engine.manager.snapshots.remove({ snapshotter: engine.manager.snapshotter, key: id }).catch(() => {});
    await directory.catch(() => {});
    await rm(dir, { recursive: true, force: true });
    throw error;
  }
  publish(core, record, "create");
  return { record, warnings };
}

/** "linux", "linux/amd64": as docker, an image of another platform counts as not there, so that the client pulls the right one. */
function checkPlatform(platform: string, image: ImageRecord, ref: string): void {
  const [os, architecture] = platform.split("/");
  if (os === image.os && (architecture === undefined || architecture === image.architecture)) return;
  throw notFound(
    `image with reference ${ref} was found but its platform (${image.os}/${image.architecture}) does not match the specified platform (${platform})`,
  );
}

function isThere(core: Core, ref: string): boolean {
  try {
    core.book.find(ref);
    return true;
  } catch {
    return false;
  }
}
