// GET /images/search
import { type Credentials, type SearchResult, searchIndex } from "../../distribution/index.ts";
import { invalidArgument } from "../../lib/errors.ts";
import { booleanFilter, type Filters } from "../events/filter.ts";
import type { Core } from "./core.ts";

export const SEARCH_FILTERS = ["is-automated", "is-official", "stars"];

export interface SearchOptions {
  term: string;
  /** 0: as many as Docker shows. */
  limit: number;
  filters: Filters;
  credentials: Credentials | undefined;
  signal: AbortSignal;
}

const DEFAULT_LIMIT = 25;
const MAX_LIMIT = 100;

export async function search(core: Core, { term, limit, filters, credentials, signal }: SearchOptions): Promise<SearchResult[]> {
  const wanted = limit === 0 ? DEFAULT_LIMIT : limit;
  if (!(wanted >= 1 && wanted <= MAX_LIMIT)) throw invalidArgument(`limit ${limit} is outside the range of [1, ${MAX_LIMIT}]`);
  const official = booleanFilter(filters, "is-official");
  const automated = booleanFilter(filters, "is-automated");
  const stars = (filters.get("stars") ?? []).map((text) => {
    if (!/^\d+$/.test(text)) throw invalidArgument(`invalid filter 'stars=[${text}]'`);
    return Number(text);
  });
  const found = await searchIndex(term, wanted, core.registry, credentials, signal);
  return found.filter(
    (one) =>
      (official === undefined || one.is_official === official) &&
      (automated === undefined || one.is_automated === automated) &&
      stars.every((least) => one.star_count >= least),
  );
}
