// local:// sources: files of the client, or of the host that the build belongs to.
import { invalidArgument } from "../../lib/errors.ts";
import type { LocalRequest } from "../host.ts";

const MAX_PATTERNS = 10_000;

function list(attrs: Record<string, string>, name: string): string[] {
  const text = attrs[name];
  if (text === undefined || text === "") return [];
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw invalidArgument(`${name} of a local source is no JSON`);
  }
  if (!Array.isArray(value) || value.length > MAX_PATTERNS || value.some((each) => typeof each !== "string"))
    throw invalidArgument(`${name} of a local source must be a list of strings`);
  return value as string[];
}

/** What a source "local://NAME" asks the host for. InvalidArgument. */
export function localRequest(identifier: string, attrs: Record<string, string>, vertex: string): LocalRequest {
  const name = identifier.slice("local://".length);
  if (name === "") throw invalidArgument("a local source needs a name");
  return {
    name,
    includePatterns: list(attrs, "local.includepattern"),
    excludePatterns: list(attrs, "local.excludepatterns"),
    followPaths: list(attrs, "local.followpaths"),
    sharedKeyHint: attrs["local.sharedkeyhint"] ?? "",
    differ: attrs["local.differ"] || "metadata",
    vertex,
  };
}
