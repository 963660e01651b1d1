// GET /images/json
import type { ImageSummary } from "../../api/types.ts";
import { invalidArgument } from "../../lib/errors.ts";
import { familiarName, familiarReference, parseReference, type Reference } from "../../oci/index.ts";
import { booleanFilter, type Filters, matchLabels } from "../events/filter.ts";
import type { CatalogueEntry } from "./catalogue.ts";
import { type Core, referencesOf } from "./core.ts";
import { imageSize, layerSizes } from "./sizes.ts";

export const LIST_FILTERS = ["dangling", "label", "label!", "before", "since", "reference", "until"];

export interface ListOptions {
  filters?: Filters;
  all?: boolean;
  digests?: boolean;
  sharedSize?: boolean;
}

/** Seconds since 1970 of an image's creation. */
export function createdOf(entry: CatalogueEntry): number {
  const time = Date.parse(entry.content.config.created ?? "");
  return Number.isNaN(time) ? 0 : Math.floor(time / 1000);
}

/** Shell pattern as Go's path.Match: * and ? stop at "/". */
export function globPattern(pattern: string): RegExp {
  let out = "";
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern[i]!;
    if (c === "*") out += "[^/]*";
    else if (c === "?") out += "[^/]";
    else if (c === "[") {
      const end = pattern.indexOf("]", i + 2);
      if (end < 0) throw invalidArgument("syntax error in pattern");
      out += `[${pattern.slice(i + 1, end).replaceAll("\\", "\\\\")}]`;
      i = end;
    } else if (c === "\\" && i + 1 < pattern.length) out += `\\${pattern[++i]}`;
    else out += c.replace(/[.+^${}()|/]/g, "\\$&");
  }
  return new RegExp(`^${out}$`);
}

function referenceMatches(patterns: readonly string[], reference: Reference): boolean {
  return patterns.some((pattern) => {
    const glob = globPattern(pattern);
    if (glob.test(familiarReference(reference)) || glob.test(familiarName(reference))) return true;
    // an unadorned name means the official one and every tag of it
    try {
      const wanted = parseReference(pattern);
      return familiarReference(wanted) === familiarReference(reference);
    } catch {
      return false;
    }
  });
}

async function timeOf(core: Core, name: string): Promise<number> {
  return createdOf(await core.catalogue.find(name));
}

/** The images that pass the filters, newest first. */
export async function filtered(core: Core, filters: Filters | undefined): Promise<CatalogueEntry[]> {
  let entries = await core.catalogue.list();
  if (filters) {
    const dangling = booleanFilter(filters, "dangling");
    const labelsOf = (entry: CatalogueEntry) => entry.content.config.config.Labels as Record<string, string> | undefined;
    if (dangling !== undefined) {
      entries = entries.filter((entry) => !referencesOf(entry).some(({ reference }) => reference.digest === undefined) === dangling);
    }
    entries = entries.filter((entry) => matchLabels(filters.get("label"), labelsOf(entry)));
    const without = filters.get("label!");
    if (without) entries = entries.filter((entry) => !without.some((label) => matchLabels([label], labelsOf(entry))));
    for (const name of filters.get("before") ?? []) {
      const limit = await timeOf(core, name);
      entries = entries.filter((entry) => createdOf(entry) < limit);
    }
    for (const name of filters.get("since") ?? []) {
      const limit = await timeOf(core, name);
      entries = entries.filter((entry) => createdOf(entry) > limit);
    }
    for (const until of filters.get("until") ?? []) {
      const limit = parseUntil(until);
      entries = entries.filter((entry) => createdOf(entry) < limit);
    }
    const patterns = filters.get("reference");
    if (patterns?.length)
      entries = entries.filter((entry) => referencesOf(entry).some(({ reference }) => referenceMatches(patterns, reference)));
  }
  return entries.sort((a, b) => createdOf(b) - createdOf(a) || (a.id < b.id ? -1 : 1));
}

/** A time (RFC 3339 or seconds since 1970) or an age ("24h", "1h30m"), as seconds since 1970. */
export function parseUntil(text: string): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text);
  const age = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?$/.exec(text);
  if (age && text !== "") return Date.now() / 1000 - (Number(age[1] ?? 0) * 3600 + Number(age[2] ?? 0) * 60 + Number(age[3] ?? 0));
  const time = Date.parse(text);
  if (Number.isNaN(time)) throw invalidArgument(`invalid value for "until" filter: failed to parse value as time or duration: "${text}"`);
  return time / 1000;
}

/** Tags and digests in familiar form; of an image with a "reference" filter, only the names that match. */
export function shownReferences(entry: CatalogueEntry, patterns?: readonly string[]): { tags: string[]; digests: string[] } {
  const tags: string[] = [];
  const digests: string[] = [];
  for (const { reference } of referencesOf(entry)) {
    if (patterns?.length && !referenceMatches(patterns, reference)) continue;
    (reference.digest === undefined ? tags : digests).push(familiarReference(reference));
  }
  return { tags: tags.sort(), digests: digests.sort() };
}

export async function summaries(core: Core, options: ListOptions): Promise<ImageSummary[]> {
  const entries = await filtered(core, options.filters);
  const used = new Map<string, number>();
  for (const record of core.engine.containers.list()) used.set(record.image.id, (used.get(record.image.id) ?? 0) + 1);
  const chainUsers = new Map<string, number>();
  if (options.sharedSize)
    for (const entry of await core.catalogue.list())
      for (const chain of entry.content.chain) chainUsers.set(chain, (chainUsers.get(chain) ?? 0) + 1);
  const out: ImageSummary[] = [];
  for (const entry of entries) {
    const { tags, digests } = shownReferences(entry, options.filters?.get("reference"));
    let shared = -1;
    if (options.sharedSize) {
      const sizes = await layerSizes(core);
      const top = entry.content.chain.findLast((chain) => (chainUsers.get(chain) ?? 0) > 1);
      shared = top === undefined ? 0 : (sizes.get(top) ?? 0);
    }
    out.push({
      Id: entry.id,
      ParentId: "",
      RepoTags: tags,
      RepoDigests: digests,
      Created: createdOf(entry),
      Size: await imageSize(core, entry.content.config.diffIds),
      SharedSize: shared,
      Labels: (entry.content.config.config.Labels ?? null) as Record<string, string>,
      Containers: options.sharedSize ? (used.get(entry.id) ?? 0) : -1,
    });
  }
  return out;
}
