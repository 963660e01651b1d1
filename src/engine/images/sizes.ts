// Sizes of images: bytes that their snapshots hold. The manager measures a committed snapshot once; here, the sums are kept, as they never change.
import { chainIds } from "../../oci/index.ts";
import { isMissing } from "./content.ts";
import type { Core } from "./core.ts";

const known = new WeakMap<Core, Map<string, number>>();

/** Bytes of the snapshots from the bottom up to each chain id, for all images. */
export async function layerSizes(core: Core): Promise<Map<string, number>> {
  let sums = known.get(core);
  if (!sums) {
    sums = new Map();
    known.set(core, sums);
  }
  for (const entry of await core.catalogue.list()) await sizeOfChain(core, sums, entry.content.chain);
  return sums;
}

/** Bytes of one image. */
export async function imageSize(core: Core, diffIds: readonly string[]): Promise<number> {
  const sums = known.get(core) ?? new Map<string, number>();
  known.set(core, sums);
  return sizeOfChain(core, sums, chainIds(diffIds));
}

async function sizeOfChain(core: Core, sums: Map<string, number>, chain: readonly string[]): Promise<number> {
  const { manager } = core.engine;
  let sum = 0;
  for (const key of chain) {
    const cached = sums.get(key);
    if (cached !== undefined) {
      sum = cached;
      continue;
    }
    try {
      const { size } = await manager.snapshots.usage({ snapshotter: manager.snapshotter, key });
      sum += Number(size);
      sums.set(key, sum);
    } catch (error) {
      if (!isMissing(error)) throw error;
      return sum;
    }
  }
  return sum;
}
