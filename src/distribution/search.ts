// `docker search`: the one question that the old index API (v1) still answers, on Docker Hub and few others.
import { invalidArgument, unknown } from "../lib/errors.ts";
import type { Credentials } from "./auth.ts";
import { registryError } from "./errors.ts";
import { endpointsOf, type RegistryConfig } from "./hosts.ts";
import { readBody } from "./transport.ts";

export interface SearchResult {
  name: string;
  description: string;
  star_count: number;
  is_official: boolean;
  is_automated: boolean;
}

const MAX_ANSWER = 4 << 20;
const INDEX = "index.docker.io";

/** At most `limit` (1 to 100) repositories that a registry finds for a term, "host/term" asking another one than Docker Hub. */
export async function searchIndex(
  term: string,
  limit: number,
  config: RegistryConfig,
  credentials: Credentials | undefined,
  signal: AbortSignal,
): Promise<SearchResult[]> {
  const slash = term.indexOf("/");
  const named = slash > 0 && /[.:]|^localhost$/.test(term.slice(0, slash));
  const domain = named ? term.slice(0, slash) : "docker.io";
  const words = (named ? term.slice(slash + 1) : term).replace(/^library\//, "");
  if (words === "") throw invalidArgument("the term to search for is missing");
  let failure: unknown;
  for (const { base, transport } of endpointsOf(domain === "docker.io" ? INDEX : domain, config, credentials, false)) {
    const url = new URL("/v1/search", base);
    url.searchParams.set("q", words);
    url.searchParams.set("n", String(limit));
    const { username, password } = credentials ?? {};
    const headers: Record<string, string> = {};
    if (username && password) headers.authorization = `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
    let response: Response;
    try {
      response = await transport.request(url, { headers, signal });
    } catch (error) {
      failure = error;
      continue;
    }
    const body = new TextDecoder().decode(await readBody(response, MAX_ANSWER, config.timeoutMs ?? 60_000));
    if (response.status !== 200) throw registryError(response.status, body, `GET ${url.origin}${url.pathname}`);
    return parseResults(body).slice(0, limit);
  }
  throw failure ?? unknown(`no address is known for ${domain}`);
}

function parseResults(body: string): SearchResult[] {
  let results: unknown;
  try {
    results = (JSON.parse(body) as { results?: unknown } | null)?.results;
  } catch {
    results = undefined;
  }
  if (results === null) return [];
  if (!Array.isArray(results)) throw unknown("the registry's answer to the search is not what it should be");
  const text = (value: unknown) => (typeof value === "string" ? value : "");
  return results.map((item: Record<string, unknown> | null) => ({
    name: text(item?.name),
    description: text(item?.description),
    star_count: typeof item?.star_count === "number" ? item.star_count : 0,
    is_official: item?.is_official === true,
    is_automated: item?.is_automated === true,
  }));
}
