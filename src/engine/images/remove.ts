// DELETE /images/{name} and POST /images/prune
import type { ImageDeleteResponseItem } from "../../api/types.ts";
import { conflict } from "../../lib/errors.ts";
import { asImageId, familiarReference, hexOf } from "../../oci/index.ts";
import type { ContainerRecord } from "../context.ts";
import type { Filters } from "../events/filter.ts";
import { type CatalogueEntry, DANGLING, targetOf } from "./catalogue.ts";
import { isMissing } from "./content.ts";
import { type Core, keepDangling, publish, referencesOf } from "./core.ts";
import { filtered, shownReferences } from "./list.ts";
import { imageSize } from "./sizes.ts";

const short = (id: string) => hexOf(id).slice(0, 12);

function users(core: Core, id: string): ContainerRecord[] {
  return core.engine.containers
    .list()
    .filter((record) => record.image.id === id || Object.values(record.imageMounts ?? {}).some(({ image }) => image === id));
}

async function untag(core: Core, entry: CatalogueEntry, name: string, out: ImageDeleteResponseItem[]): Promise<void> {
  await core.engine.manager.images.delete({ name, sync: false }).catch((error: unknown) => {
    if (!isMissing(error)) throw error;
  });
  if (name.startsWith(DANGLING)) return;
  const found = referencesOf(entry).find((one) => one.name === name);
  if (found) out.push({ Untagged: familiarReference(found.reference) });
  publish(core, "untag", entry.id, entry.id);
}

/** The image goes: what is told, and from the image store its last names. Its content and snapshots are garbage then. */
async function removeAll(core: Core, entry: CatalogueEntry, out: ImageDeleteResponseItem[]): Promise<void> {
  const names = entry.names.map((image) => image.name);
  for (const [i, name] of names.entries()) {
    const last = i === names.length - 1;
    await core.engine.manager.images.delete({ name, sync: last }).catch((error: unknown) => {
      if (!isMissing(error)) throw error;
    });
    const found = referencesOf(entry).find((one) => one.name === name);
    if (!found) continue;
    out.push({ Untagged: familiarReference(found.reference) });
    publish(core, "untag", entry.id, entry.id);
  }
  out.push({ Deleted: entry.id });
  // layers that no other image stands on
  const kept = new Set((await core.catalogue.list()).flatMap((other) => other.content.chain));
  for (const chain of [...entry.content.chain].reverse()) if (!kept.has(chain)) out.push({ Deleted: chain });
  publish(core, "delete", entry.id, entry.id);
}

export async function remove(core: Core, ref: string, force: boolean): Promise<ImageDeleteResponseItem[]> {
  const entry = await core.catalogue.find(ref);
  const out: ImageDeleteResponseItem[] = [];
  const using = users(core, entry.id);
  const running = using.filter((record) => record.state.Running);
  const references = referencesOf(entry);
  const tags = references.filter(({ reference }) => reference.digest === undefined);
  const byName = entry.matched;

  if (byName) {
    const matched = references.find((one) => one.name === byName.name)!;
    // By name, only the name goes, unless it is the last tag (digests of the same repository go with it).
    const others = tags.filter((one) => one.name !== matched.name);
    if (others.length > 0 || (matched.reference.digest !== undefined && tags.length > 0)) {
      await untag(core, entry, matched.name, out);
      const sameRepository = others.some(
        ({ reference }) => reference.domain === matched.reference.domain && reference.path === matched.reference.path,
      );
      if (matched.reference.digest === undefined && !sameRepository)
        for (const { name, reference } of references)
          if (reference.digest !== undefined && reference.domain === matched.reference.domain && reference.path === matched.reference.path)
            await untag(core, entry, name, out);
      return out;
    }
    if (using.length > 0) {
      if (!force) {
        const container = (running[0] ?? using[0])!;
        throw conflict(
          `conflict: unable to remove repository reference "${ref}" (must force) - container ${container.id.slice(0, 12)} is using its referenced image ${short(entry.id)}`,
        );
      }
      // forced: the names go, the image stays for its containers
      const target = targetOf(byName);
      for (const { name } of references) await untag(core, entry, name, out);
      await keepDangling(core, target);
      return out;
    }
  } else {
    const id = asImageId(ref).prefix ?? hexOf(asImageId(ref).digest!);
    const shown = id.slice(0, 12);
    if (running.length > 0)
      throw conflict(
        `conflict: unable to delete ${shown} (cannot be forced) - image is being used by running container ${running[0]!.id.slice(0, 12)}`,
      );
    const repositories = new Set(references.map(({ reference }) => `${reference.domain}/${reference.path}`));
    if (!force && (tags.length > 1 || repositories.size > 1))
      throw conflict(`conflict: unable to delete ${shown} (must be forced) - image is referenced in multiple repositories`);
    if (using.length > 0) {
      if (!force)
        throw conflict(
          `conflict: unable to delete ${shown} (must be forced) - image is being used by stopped container ${using[0]!.id.slice(0, 12)}`,
        );
      const target = entry.content.target;
      for (const { name } of references) await untag(core, entry, name, out);
      await keepDangling(core, target);
      return out;
    }
  }
  await removeAll(core, entry, out);
  return out;
}

/** Images that no container uses and that have no tag, or, with dangling=false, no container alone. */
export async function prune(
  core: Core,
  filters: Filters,
): Promise<{ ImagesDeleted: ImageDeleteResponseItem[] | null; SpaceReclaimed: number }> {
  const danglingOnly = !(filters.get("dangling") ?? []).some((value) => ["false", "0"].includes(value));
  const rest: Filters = new Map([...filters].filter(([name]) => name !== "dangling"));
  const out: ImageDeleteResponseItem[] = [];
  let reclaimed = 0;
  for (const entry of await filtered(core, rest)) {
    if (danglingOnly && shownReferences(entry).tags.length > 0) continue;
    if (users(core, entry.id).length > 0) continue;
    const kept = new Set((await core.catalogue.list()).filter((other) => other.id !== entry.id).flatMap((other) => other.content.chain));
    const shared = entry.content.chain.filter((chain) => kept.has(chain)).length;
    const size = await imageSize(core, entry.content.config.diffIds);
    reclaimed += size - (shared ? await imageSize(core, entry.content.config.diffIds.slice(0, shared)) : 0);
    await removeAll(core, entry, out);
  }
  publish(core, "prune", "", "");
  return { ImagesDeleted: out.length ? out : null, SpaceReclaimed: reclaimed };
}
