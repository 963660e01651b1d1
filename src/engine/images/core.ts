// What the files of this resource share.
import type { RegistryConfig } from "../../distribution/index.ts";
import type { Descriptor } from "../../oci/index.ts";
import { familiarReference, formatReference, parseReference, type Reference } from "../../oci/index.ts";
import type { Engine } from "../context.ts";
import { type Catalogue, type CatalogueEntry, createCatalogue, DANGLING } from "./catalogue.ts";
import { isThere, type Lease } from "./content.ts";

export interface Core {
  engine: Engine;
  catalogue: Catalogue;
  registry: RegistryConfig;
}

const cores = new WeakMap<Engine, Core>();

/** The one core of an engine; the face and the routes are made apart from each other. */
export function coreOf(engine: Engine): Core {
  let core = cores.get(engine);
  if (!core) {
    // The manager is looked up at each use: it is there only once the engine is put together.
    const manager = new Proxy({} as Engine["manager"], { get: (_, key) => Reflect.get(engine.manager, key) });
    core = {
      engine,
      catalogue: createCatalogue(manager),
      // read at each use, as SIGHUP may change it
      get registry() {
        const { insecureRegistries, registryMirrors, maxDownloadAttempts, proxies } = engine.config;
        const attempts = maxDownloadAttempts > 0 ? { attempts: maxDownloadAttempts } : {};
        return { insecure: insecureRegistries ?? [], mirrors: registryMirrors ?? [], ...attempts, proxy: proxies ?? {} };
      },
    };
    cores.set(engine, core);
  }
  return core;
}

/** Lets a name lead to a descriptor, whatever it led to before; answers what that was. */
export async function setName(core: Core, name: string, target: Descriptor, lease?: Lease): Promise<Descriptor | undefined> {
  const { images } = core.engine.manager;
  const image = {
    name,
    labels: {},
    target: { mediaType: target.mediaType, digest: target.digest, size: BigInt(target.size), annotations: {} },
  };
  const headers = lease ? { headers: lease.headers } : {};
  const there = (await core.catalogue.get(name))?.target;
  if (there?.digest === target.digest && there.mediaType === target.mediaType && there.size === image.target.size) return undefined;
  try {
    await images.create({ image }, headers);
    return undefined;
  } catch (error) {
    if (!isThere(error)) throw error;
  }
  const before = await core.catalogue.get(name);
  await images.update({ image, updateMask: { paths: ["target"] } }, headers);
  const old = before?.target;
  return old && old.digest !== target.digest ? { mediaType: old.mediaType, digest: old.digest, size: Number(old.size) } : undefined;
}

/** Keeps an image that lost its last name, as Docker shows it: <none>. */
export async function keepDangling(core: Core, target: Descriptor | undefined): Promise<void> {
  if (!target) return;
  const content = await core.catalogue.open(target);
  if (!content) return;
  const id = content.manifest.config.digest;
  const entry = (await core.catalogue.list()).find((one) => one.id === id);
  if (!entry) await setName(core, `${DANGLING}${id}`, target);
}

/** The names of an image that are references, dangling ones apart. */
export function referencesOf(entry: CatalogueEntry): { name: string; reference: Reference }[] {
  const out: { name: string; reference: Reference }[] = [];
  for (const { name } of entry.names) {
    if (name.startsWith(DANGLING)) continue;
    try {
      out.push({ name, reference: parseReference(name) });
    } catch {
      // given by another client, and no reference
    }
  }
  return out;
}

/** Tags an image: the name leads to it from now on, and what it led to before is kept without a name. */
export async function tagImage(core: Core, reference: Reference, target: Descriptor, lease?: Lease): Promise<void> {
  const before = await setName(core, formatReference(reference), target, lease);
  await keepDangling(core, before);
  const content = await core.catalogue.open(target);
  if (content) {
    const id = content.manifest.config.digest;
    await core.engine.manager.images.delete({ name: `${DANGLING}${id}` }).catch(() => {});
  }
}

/** Announces what happened to an image. */
export function publish(core: Core, action: string, id: string, name: string): void {
  core.engine.events.publish("image", action, id, { name });
}

export { familiarReference };
