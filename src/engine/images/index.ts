// Images as the Engine API knows them: /images, /distribution, /commit, and what containers need of an image. Everything is kept by the manager (content,
// image names, leases, snapshots, diff); this resource keeps nothing of its own but what it can read again. It must never know files or directories
// of the manager, so that a containerd behind a socket serves as well.
//
// Nouns: an image is a config, known by its digest (the image id); names lead to a manifest or an index that leads to it. A pull or load writes content
// under a lease, makes the snapshots (unpack.ts), then names the image. A name that is taken away leaves a dangling image if nothing else names it.
import type { ImageConfig } from "../../api/types.ts";
import { familiarReference, parseReference, withDefaultTag } from "../../oci/index.ts";
import type { Engine, ImageRecord, ImagesFace } from "../context.ts";
import type { Route } from "../route.ts";
import type { CatalogueEntry } from "./catalogue.ts";
import { dropHalfDone, withLease } from "./content.ts";
import { type Core, coreOf, referencesOf } from "./core.ts";
import { summaries } from "./list.ts";
import { layerSizes } from "./sizes.ts";
import { clearSpools } from "./spool.ts";
import { hasSnapshot, unpackLayers } from "./unpack.ts";

export { routes } from "./routes.ts";

function recordOf(entry: CatalogueEntry): ImageRecord {
  const { config } = entry.content;
  return {
    id: entry.id,
    names: referencesOf(entry).map(({ name }) => name),
    config: config.config as ImageConfig,
    os: config.os,
    architecture: config.architecture,
    chainId: entry.content.chainId,
    created: config.created,
  };
}

/** Unpacks an image whose snapshot is not there (made by another client, or lost). */
export async function ensureUnpacked(core: Core, entry: CatalogueEntry): Promise<void> {
  const { manager } = core.engine;
  const { chainId, manifest, config } = entry.content;
  if (chainId === "" || (await hasSnapshot(manager, chainId))) return;
  await withLease(manager, (lease) => unpackLayers(manager, manifest.layers, config.diffIds, lease));
}

/** What a killed engine was in the middle of (pulls, loads, builds, commits) costs nothing from here on. */
export async function recover(engine: Engine): Promise<void> {
  clearSpools(engine);
  await dropHalfDone(engine.manager);
}

export function createImages(engine: Engine): ImagesFace {
  const core = coreOf(engine);
  return {
    async resolve(ref) {
      const entry = await core.catalogue.find(ref);
      await ensureUnpacked(core, entry);
      return recordOf(entry);
    },
    familiar(ref) {
      try {
        return familiarReference(withDefaultTag(parseReference(ref))).replace(/:latest$/, "");
      } catch {
        return ref;
      }
    },
    async layerSize(chainId) {
      const sizes = await layerSizes(core);
      return sizes.get(chainId) ?? 0;
    },
    async diskUsage() {
      const images = await summaries(core, { all: true, sharedSize: true });
      const sizes = await layerSizes(core);
      const seen = new Set<string>();
      let total = 0;
      for (const entry of await core.catalogue.list()) {
        for (const [i, chain] of entry.content.chain.entries()) {
          if (seen.has(chain)) continue;
          seen.add(chain);
          total += (sizes.get(chain) ?? 0) - (sizes.get(entry.content.chain[i - 1] ?? "") ?? 0);
        }
      }
      return { LayersSize: total, Images: images };
    },
  } satisfies ImagesFace;
}

export type { Route };
