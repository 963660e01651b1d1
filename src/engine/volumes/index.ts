// Volumes: named and anonymous directories of the engine, bind mounts of the host's, images as mounts, and how they get into containers.
//
// It must never know how a mount is made in a container (the runtime's tape does that); it answers host directories.
// At its door: VolumesFace of ../context.ts, and /volumes of the Engine API.
// Life: create (explicitly, or by a container that names it) → used by containers → removed, by name, with its last anonymous use, or by prune.
//
//   record.mounts = await engine.volumes.resolve(record, image);     // create: parsed, checked, volumes made
//   await engine.volumes.populate(record);                           // before the first start: the image's files into new volumes
//   const dir = await engine.volumes.source(record.mounts[0], record) // each start
//   await engine.volumes.release(record, true);                      // removed
import { randomBytes } from "node:crypto";
import { mkdirSync, statSync } from "node:fs";
import type { MountPoint } from "../../api/types.ts";
import { conflict, invalidArgument, messageOf, notFound } from "../../lib/errors.ts";
import { span } from "../../trace/index.ts";
import type { ContainerRecord, Engine, VolumesFace } from "../context.ts";
import { imageMountPath, mountImage, removeView, sweepImageMounts, unmountImages, viewImage } from "./image-mount.ts";
import { mountVolume, sourceOf, unmountVolume } from "./local.ts";
import { checkVolumeName, parseBind, parseMount, parseVolumesFrom, toMountPoint, type Wanted } from "./parse.ts";
import { populateVolume } from "./populate.ts";
import { checkPropagation } from "./propagation.ts";
import { directorySize } from "./size.ts";
import { openStore, type StoredVolume, type VolumeStore } from "./store.ts";

export { routes } from "./routes.ts";

/** What the routes need beyond the face. */
export interface Volumes extends VolumesFace {
  store: VolumeStore;
  create(name: string, driver: string, options: Record<string, string>, labels: Record<string, string>, anonymous: boolean): StoredVolume;
  remove(name: string, force: boolean): Promise<void>;
  /** Ids of the containers that use a volume. */
  users(name: string): string[];
}

/** How long a volume counts as used by a container that is being created and not in the list yet. */
const CREATING_MS = 60_000;

export function createVolumes(engine: Engine): Volumes {
  const store = openStore(engine.db, engine.config.dataRoot);
  const creating = new Map<string, { names: string[]; at: number }>();

  function publish(action: string, name: string, attributes: Record<string, string>): void {
    engine.events.publish("volume", action, name, attributes);
  }

  function create(
    name: string,
    driver: string,
    options: Record<string, string>,
    labels: Record<string, string>,
    anonymous: boolean,
  ): StoredVolume {
    const existing = store.get(name);
    if (driver !== "local") throw notFound(`error looking up volume plugin ${driver}: plugin "${driver}" not found`);
    if (existing) return existing;
    checkVolumeName(name);
    checkOptions(name, options);
    const volume = { name, driver, labels, options, created: `${new Date().toISOString().slice(0, 19)}Z`, anonymous };
    store.add(volume);
    publish("create", name, { driver });
    return volume;
  }

  function users(name: string): string[] {
    const ids = new Set<string>();
    for (const record of engine.containers.list()) {
      creating.delete(record.id);
      if (record.mounts.some((mount) => mount.Type === "volume" && mount.Name === name)) ids.add(record.id);
    }
    for (const [id, { names, at }] of creating) {
      if (Date.now() - at > CREATING_MS) creating.delete(id);
      else if (names.includes(name)) ids.add(id);
    }
    return [...ids];
  }

  async function remove(name: string, force: boolean): Promise<void> {
    const volume = store.get(name);
    if (!volume) {
      if (force) return;
      throw notFound(`get ${name}: no such volume`);
    }
    const ids = users(name);
    if (ids.length > 0) throw conflict(`remove ${name}: volume is in use - [${ids.join(", ")}]`);
    unmountVolume(store.path(name));
    await store.remove(name);
    publish("destroy", name, { driver: volume.driver });
  }

  /** Checks a bind's source at create, and makes the volume that a mount names. */
  function realise(wanted: Wanted): MountPoint {
    if (wanted.type === "tmpfs") return toMountPoint(wanted);
    if (wanted.type === "bind") {
      if (!wanted.makeSource && !statSync(wanted.source, { throwIfNoEntry: false })) {
        throw invalidArgument(`invalid mount config for type "bind": bind source path does not exist: ${wanted.source}`);
      }
      return toMountPoint(wanted);
    }
    const anonymous = wanted.source === "";
    const name = anonymous ? randomBytes(32).toString("hex") : wanted.source;
    const labels = anonymous ? { ...wanted.labels, "com.docker.volume.anonymous": "" } : wanted.labels;
    const volume = create(name, wanted.driver ?? "local", wanted.driverOptions, labels, anonymous);
    return toMountPoint(wanted, { name, path: store.path(name), driver: volume.driver });
  }

  /** A container whose volumes are wanted. Where it is missing, the request is wrong; NotFound would tell clients that the image is missing. */
  function donor(ref: string): ContainerRecord {
    try {
      return engine.containers.get(ref);
    } catch (error) {
      throw invalidArgument(messageOf(error));
    }
  }

  /** The mounts of others, and which images those of images are of. */
  function inherited(record: ContainerRecord) {
    const points = new Map<string, MountPoint>();
    const images = new Map<string, { image: string; subpath: string }>();
    for (const raw of record.hostConfig.VolumesFrom ?? []) {
      const { container, readOnly, mode } = parseVolumesFrom(raw);
      const from = donor(container);
      for (const mount of from.mounts) {
        const image = mount.Type === "image" ? from.imageMounts?.[mount.Destination!] : undefined;
        if (image) images.set(mount.Destination!, image);
        else if (mount.Type !== "volume" && mount.Type !== "bind") continue;
        const RW = (mount.RW ?? true) && !readOnly;
        points.set(mount.Destination!, { ...mount, RW, Mode: mode || mount.Mode || "" });
      }
    }
    return { points, images };
  }

  async function resolve(record: ContainerRecord, image: { config: { Volumes?: Record<string, unknown> } }): Promise<MountPoint[]> {
    const { hostConfig, config } = record;
    const wanted = [
      ...(hostConfig.Binds ?? []).map((raw) => parseBind(raw, hostConfig.VolumeDriver)),
      ...(hostConfig.Mounts ?? []).map(parseMount),
    ];
    const taken = new Set(Object.keys(hostConfig.Tmpfs ?? {}));
    for (const { destination } of wanted) {
      if (taken.has(destination)) throw invalidArgument(`Duplicate mount point: ${destination}`);
      taken.add(destination);
    }
    const { points, images: donors } = inherited(record);
    const declared = [...Object.keys(config.Volumes ?? {}), ...Object.keys(image.config.Volumes ?? {})];
    const anonymous = new Map<string, Wanted>();
    for (const path of declared) {
      const volume = parseBind(path, hostConfig.VolumeDriver);
      if (taken.has(volume.destination) || points.has(volume.destination)) continue;
      anonymous.set(volume.destination, volume);
    }
    const made: string[] = [];
    const imageMounts: NonNullable<ContainerRecord["imageMounts"]> = {};
    const mountImageAt = async (destination: string, source: string, name: string, subpath: string) => {
      imageMounts[destination] = { image: await viewImage(engine, record, source, destination), subpath };
      const Source = imageMountPath(engine, record.id, destination);
      points.set(destination, {
        Type: "image",
        Name: name,
        Source,
        Destination: destination,
        Mode: "",
        RW: false,
        Propagation: "rprivate",
      });
    };
    try {
      for (const [destination, point] of points) {
        if (point.Type !== "image" || wanted.some((each) => each.destination === destination)) continue;
        const { image: id, subpath } = donors.get(destination)!;
        await mountImageAt(destination, id, point.Name ?? id, subpath);
      }
      for (const each of [...wanted, ...anonymous.values()]) {
        if (each.type === "image") {
          await mountImageAt(each.destination, each.source, each.source, each.subpath);
          continue;
        }
        const had = each.type === "volume" && store.get(each.source) !== undefined;
        const point = realise(each);
        if (point.Type === "volume" && !had) made.push(point.Name!);
        points.set(each.destination, point);
      }
    } catch (error) {
      for (const name of made) await store.remove(name);
      for (const destination of Object.keys(imageMounts)) await removeView(engine, record.id, destination);
      throw error;
    }
    if (Object.keys(imageMounts).length > 0) record.imageMounts = imageMounts;
    const all = [...points.values()];
    const names = all.filter((point) => point.Type === "volume").map((point) => point.Name!);
    if (names.length > 0) creating.set(record.id, { names, at: Date.now() });
    return all;
  }

  async function release(record: ContainerRecord, removeAnonymous: boolean): Promise<void> {
    creating.delete(record.id);
    if (record.imageMounts) unmountImages(engine, record.id);
    for (const destination of Object.keys(record.imageMounts ?? {})) await removeView(engine, record.id, destination);
    const names = new Set(record.mounts.filter((mount) => mount.Type === "volume").map((mount) => mount.Name!));
    for (const name of names) {
      const volume = store.get(name);
      if (!volume) continue;
      const others = users(name).filter((id) => id !== record.id);
      if (others.length > 0) continue;
      if (removeAnonymous && volume.anonymous) {
        unmountVolume(store.path(name));
        await store.remove(name);
        publish("destroy", name, { driver: volume.driver });
      } else if (volume.options.type || volume.options.device) unmountVolume(store.path(name));
    }
  }

  function stopped(record: ContainerRecord): void {
    if (record.imageMounts) unmountImages(engine, record.id);
    for (const mount of record.mounts) {
      const volume = mount.Type === "volume" ? store.get(mount.Name!) : undefined;
      if (!volume) continue;
      publish("unmount", volume.name, { container: record.id, driver: volume.driver });
      if (!volume.options.type && !volume.options.device) continue;
      const busy = engine.containers
        .list()
        .some((other) => other.id !== record.id && other.state.Running && other.mounts.some((each) => each.Name === volume.name));
      try {
        if (!busy) unmountVolume(store.path(volume.name));
      } catch (error) {
        engine.log("warn", "volume could not be unmounted", { volume: volume.name, error: String(error) });
      }
    }
  }

  const specOf = (mount: MountPoint, record: ContainerRecord): Wanted | undefined => {
    const listed = record.hostConfig.Mounts?.find((each) => each.Target && parseMount(each).destination === mount.Destination);
    if (listed) return parseMount(listed);
    const bind = record.hostConfig.Binds?.map((raw) => parseBind(raw, undefined)).find((each) => each.destination === mount.Destination);
    return bind;
  };

  return {
    store,
    create,
    remove,
    users,
    resolve: (record, image) => span("volumes resolve", { container: record.id }, () => resolve(record, image)),
    populate: (record) =>
      span("volumes populate", { container: record.id }, async () => {
        for (const mount of record.mounts) {
          const volume = mount.Type === "volume" ? store.get(mount.Name!) : undefined;
          if (!volume) continue;
          const wanted = specOf(mount, record);
          if (wanted?.noCopy || wanted?.subpath) continue;
          await populateVolume(engine, record, mount.Destination!, await mountVolume(volume, store.path(volume.name)));
        }
      }),
    async source(mount, record) {
      const wanted = specOf(mount, record);
      if (mount.Type === "volume") {
        const volume = store.get(mount.Name!);
        if (!volume) throw notFound(`get ${mount.Name}: no such volume`);
        const dir = sourceOf(await mountVolume(volume, store.path(volume.name)), wanted?.subpath ?? "");
        publish("mount", volume.name, {
          container: record.id,
          destination: mount.Destination!,
          driver: volume.driver,
          propagation: mount.Propagation ?? "",
          "read/write": String(mount.RW ?? true),
        });
        return dir;
      }
      if (mount.Type === "image") {
        const { subpath = "" } = record.imageMounts?.[mount.Destination!] ?? {};
        return sourceOf(await mountImage(engine, record.id, mount.Destination!), subpath);
      }
      const path = mount.Source ?? "";
      if (statSync(path, { throwIfNoEntry: false })) {
        checkPropagation(path, mount.Propagation ?? "");
        return path;
      }
      if (wanted && !wanted.makeSource)
        throw invalidArgument(`invalid mount config for type "bind": bind source path does not exist: ${path}`);
      mkdirSync(path, { recursive: true, mode: 0o755 });
      return path;
    },
    stopped,
    sweep: (running) => sweepImageMounts(engine, running),
    release,
    async diskUsage() {
      const list = await Promise.all(
        store.list().map(async (volume) => ({
          ...store.toApi(volume),
          UsageData: { Size: await directorySize(store.path(volume.name)), RefCount: users(volume.name).length },
        })),
      );
      return { Volumes: list };
    },
  };
}

/** Options of the local driver, and which others each of them needs. */
const OPTIONS: Record<string, string[]> = { type: ["device"], device: ["type"], o: ["device", "type"], size: [] };

function checkOptions(volume: string, options: Record<string, string>): void {
  const refuse = (why: string) => invalidArgument(`create ${volume}: ${why}`);
  for (const name of Object.keys(options)) if (!(name in OPTIONS)) throw refuse(`invalid option: "${name}"`);
  for (const name of Object.keys(options)) {
    const missing = OPTIONS[name]!.find((other) => !(other in options));
    if (missing) throw refuse(`missing required option: "${missing}"`);
  }
  if (options.size !== undefined) throw refuse("quota size requested but no quota support");
}
