// The routes of /images and its neighbours. What each does is in the file of its name; it is loaded when first used.
import type { Credentials } from "../../distribution/index.ts";
import { invalidArgument } from "../../lib/errors.ts";
import {
  familiarReference,
  isDigest,
  normalise,
  type Platform,
  parsePlatform,
  parseReference,
  parseTag,
  type Reference,
  withDefaultTag,
} from "../../oci/index.ts";
import type { Engine } from "../context.ts";
import { parseFilters } from "../events/filter.ts";
import { type Call, flag, type Route } from "../route.ts";
import { type Core, coreOf, publish, tagImage } from "./core.ts";
import { LIST_FILTERS, summaries } from "./list.ts";
import { streamed } from "./progress.ts";

/** X-Registry-Auth: base64url of JSON. As Docker, what can't be read counts as none. */
function credentialsOf(call: Call): Credentials | undefined {
  const header = call.headers["x-registry-auth"];
  if (!header) return undefined;
  try {
    const json = JSON.parse(Buffer.from(header, "base64url").toString("utf8")) as Record<string, unknown>;
    const text = (key: string) => (typeof json[key] === "string" && json[key] !== "" ? (json[key] as string) : undefined);
    const out: Credentials = {};
    const username = text("username");
    const password = text("password");
    const identityToken = text("identitytoken");
    const registryToken = text("registrytoken");
    if (username !== undefined) out.username = username;
    if (password !== undefined) out.password = password;
    if (identityToken !== undefined) out.identityToken = identityToken;
    if (registryToken !== undefined) out.registryToken = registryToken;
    return Object.keys(out).length ? out : undefined;
  } catch {
    return undefined;
  }
}

/** `fromImage` (or `repo`) with `tag`, which may be a digest. */
function referenceOf(name: string, tag: string): Reference {
  const reference = parseReference(name.replace(/[:@]+$/, ""));
  if (tag !== "") {
    if (isDigest(tag)) {
      const { tag: _, ...rest } = reference;
      return { ...rest, digest: tag };
    }
    const { digest: _, ...rest } = reference;
    return { ...rest, tag: parseTag(tag) };
  }
  return withDefaultTag(reference);
}

/** A platform as JSON, since API 1.46; undefined where none is said. */
function platformOf(text: string | null): Platform | undefined {
  if (!text) return undefined;
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  const { os, architecture, variant } = (typeof json === "object" && json !== null ? json : {}) as Record<string, unknown>;
  if (
    typeof os !== "string" ||
    typeof architecture !== "string" ||
    !os ||
    !architecture ||
    !["string", "undefined"].includes(typeof variant)
  )
    throw invalidArgument(`invalid platform: ${text}`);
  return normalise({ os, architecture, ...(variant ? { variant: variant as string } : {}) });
}

const JSON_STREAM = "application/json";

export function routes(engine: Engine): Route[] {
  const core: Core = coreOf(engine);
  return [
    {
      method: "POST",
      path: "/images/create",
      async handle(call) {
        const { query } = call;
        const fromImage = query.get("fromImage") ?? "";
        const platformText = query.get("platform") ?? "";
        const platform = platformText ? parsePlatform(platformText) : undefined;
        if (fromImage !== "") {
          const { pull, pullAll } = await import("./pull.ts");
          const reference = referenceOf(fromImage, query.get("tag") ?? "");
          const credentials = credentialsOf(call);
          const named = parseReference(fromImage.replace(/[:@]+$/, ""));
          // no tag at all asks for all of them
          const work = query.get("tag") || named.tag || named.digest ? pull : pullAll;
          const stream = await streamed((sink, signal) => work(core, { reference, platform, credentials, signal }, sink), call.signal);
          return { type: JSON_STREAM, stream };
        }
        const { importImage } = await import("./import.ts");
        const stream = await streamed((sink, signal) => importImage(core, call, platform, sink, signal), call.signal);
        return { type: JSON_STREAM, stream };
      },
    },
    {
      method: "GET",
      path: "/images/json",
      async handle({ query }) {
        const filters = parseFilters(query.get("filters"), LIST_FILTERS);
        const name = query.get("filter");
        if (name) filters.set("reference", [name]);
        return {
          json: await summaries(core, {
            filters,
            all: flag(query, "all"),
            digests: flag(query, "digests"),
            sharedSize: flag(query, "shared-size"),
          }),
        };
      },
    },
    {
      method: "GET",
      path: "/images/search",
      async handle(call) {
        const { search, SEARCH_FILTERS } = await import("./search.ts");
        const limit = Number(call.query.get("limit") || 0);
        if (!Number.isInteger(limit)) throw invalidArgument(`limit ${call.query.get("limit")} is not a number`);
        const filters = parseFilters(call.query.get("filters"), SEARCH_FILTERS);
        const options = { term: call.query.get("term") ?? "", limit, filters, credentials: credentialsOf(call), signal: call.signal };
        return { json: await search(core, options) };
      },
    },
    {
      method: "GET",
      path: "/images/get",
      async handle({ query, signal }) {
        const { save } = await import("./save.ts");
        const names = query
          .getAll("names")
          .flatMap((name) => name.split(","))
          .filter(Boolean);
        if (names.length === 0) throw invalidArgument("no images to save: the parameter names is missing");
        return { type: "application/x-tar", stream: await save(core, names, platformOf(query.get("platform")), signal) };
      },
    },
    {
      method: "POST",
      path: "/images/load",
      async handle(call) {
        const { load } = await import("./load.ts");
        const quiet = flag(call.query, "quiet", true);
        const platform = platformOf(call.query.get("platform"));
        const stream = await streamed((sink, signal) => load(core, call.body, { quiet, platform, signal }, sink), call.signal);
        return { type: JSON_STREAM, stream };
      },
    },
    {
      method: "POST",
      path: "/images/prune",
      since: 25,
      async handle({ query }) {
        const { prune } = await import("./remove.ts");
        return { json: await prune(core, parseFilters(query.get("filters"), ["dangling", "label", "label!", "until"])) };
      },
    },
    {
      method: "GET",
      path: "/images/{name...}/json",
      async handle({ params, query, version, headers }) {
        const { inspect, needsContainerConfig } = await import("./inspect.ts");
        const old = version < 45 || needsContainerConfig(headers["user-agent"]);
        return { json: await inspect(core, params.name!, version, platformOf(query.get("platform")), old) };
      },
    },
    {
      method: "GET",
      path: "/images/{name...}/history",
      async handle({ params, query }) {
        const { history } = await import("./inspect.ts");
        return { json: await history(core, params.name!, platformOf(query.get("platform"))) };
      },
    },
    {
      method: "GET",
      path: "/images/{name...}/get",
      async handle({ params, query, signal }) {
        const { save } = await import("./save.ts");
        return { type: "application/x-tar", stream: await save(core, [params.name!], platformOf(query.get("platform")), signal) };
      },
    },
    {
      method: "POST",
      path: "/images/{name...}/tag",
      async handle({ params, query }) {
        const repo = query.get("repo") ?? "";
        const reference = referenceOf(repo, query.get("tag") ?? "");
        if (reference.digest !== undefined) throw invalidArgument("refusing to create a tag with a digest reference");
        const entry = await core.catalogue.find(params.name!);
        await tagImage(core, reference, entry.content.target);
        publish(core, "tag", entry.id, familiarReference(reference));
        return { status: 201 };
      },
    },
    {
      method: "POST",
      path: "/images/{name...}/push",
      async handle(call) {
        const { push } = await import("./push.ts");
        const tag = call.query.get("tag") ?? "";
        // no tag at all asks for all of them
        const reference = tag === "" ? parseReference(call.params.name!) : referenceOf(call.params.name!, tag);
        const platform = platformOf(call.query.get("platform"));
        const credentials = credentialsOf(call);
        const stream = await streamed((sink, signal) => push(core, { reference, platform, credentials, signal }, sink), call.signal);
        return { type: JSON_STREAM, stream };
      },
    },
    {
      method: "DELETE",
      path: "/images/{name...}",
      async handle({ params, query }) {
        const { remove } = await import("./remove.ts");
        return { json: await remove(core, params.name!, flag(query, "force")) };
      },
    },
    {
      method: "POST",
      path: "/commit",
      async handle(call) {
        const { commit } = await import("./commit.ts");
        const { query } = call;
        const body = ((await call.json()) ?? {}) as Record<string, unknown>;
        const repo = query.get("repo") ?? "";
        const Id = await commit(core, {
          container: query.get("container") ?? "",
          reference: repo === "" ? undefined : referenceOf(repo, query.get("tag") ?? ""),
          comment: query.get("comment") ?? "",
          author: query.get("author") ?? "",
          pause: flag(query, "pause", true),
          changes: query.getAll("changes"),
          config: body,
          signal: call.signal,
        });
        return { status: 201, json: { Id } };
      },
    },
    {
      method: "GET",
      path: "/containers/{id}/changes",
      async handle({ params }) {
        const { containerChanges } = await import("./difference.ts");
        return { json: await containerChanges(core, params.id!) };
      },
    },
    {
      method: "GET",
      path: "/distribution/{name...}/json",
      since: 30,
      async handle(call) {
        const { distribution } = await import("./distribution.ts");
        return { json: await distribution(core, call.params.name!, credentialsOf(call), call.signal) };
      },
    },
  ];
}
