// A bundle's config.json, read and checked as far as nothing later would.
import { Failure, invalidArgument } from "../../lib/errors.ts";
import { resolve } from "../../lib/paths.ts";
import { readFileSync } from "../../linux/index.ts";
import type { Process, Spec } from "../../oci/runtime-spec.ts";
import { resourcesOf } from "./go-spelling.ts";

const MAX_CONFIG = 16 << 20;

export function readBundle(bundle: string): Spec {
  let text: string;
  try {
    text = readFileSync(`${bundle}/config.json`, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") throw new Failure("NotFound", "JSON specification file config.json not found");
    throw error;
  }
  if (text.length > MAX_CONFIG) throw invalidArgument("config.json is larger than 16 MB");
  return checkSpec(parseJson(text, "config.json"), text.includes("null"));
}

export function parseJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw invalidArgument(`${what} is not valid JSON: ${(error as Error).message}`);
  }
}

function object(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw invalidArgument(`${what} must be an object`);
  return value as Record<string, unknown>;
}

function strings(value: unknown, what: string): void {
  if (value === undefined || value === null) return;
  let right = Array.isArray(value);
  if (right) for (const each of value as unknown[]) if (typeof each !== "string") right = false;
  if (!right) throw invalidArgument(`${what} must be a list of strings`);
}

/** Go's encoders write null where a member is absent. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, v]) => v !== null)
      .map(([k, v]) => [k, withoutNulls(v)]),
  );
}

/** `nulls`: there may be some. */
export function checkSpec(value: unknown, nulls = true): Spec {
  const spec = object(nulls ? withoutNulls(value) : value, "config.json");
  if (typeof spec.ociVersion !== "string") throw invalidArgument("config.json: ociVersion is missing");
  if (!spec.ociVersion.startsWith("1.")) throw invalidArgument(`config.json: ociVersion ${spec.ociVersion} is not supported`);
  if (spec.root !== undefined && typeof object(spec.root, "root").path !== "string")
    throw invalidArgument("config.json: root.path is missing");
  if (spec.process !== undefined) checkProcess(spec.process, false);
  for (const mount of (spec.mounts as unknown[] | undefined) ?? []) {
    if (typeof object(mount, "a mount").destination !== "string") throw invalidArgument("config.json: a mount has no destination");
    strings((mount as Record<string, unknown>).options, "a mount's options");
  }
  const linux = spec.linux === undefined ? {} : object(spec.linux, "linux");
  for (const namespace of (linux.namespaces as unknown[] | undefined) ?? []) {
    if (typeof object(namespace, "a namespace").type !== "string") throw invalidArgument("config.json: a namespace has no type");
  }
  if (linux.resources !== undefined) linux.resources = resourcesOf(object(linux.resources, "linux.resources"));
  strings(linux.maskedPaths, "linux.maskedPaths");
  strings(linux.readonlyPaths, "linux.readonlyPaths");
  return spec as unknown as Spec;
}

export function checkProcess(value: unknown, nulls = true): Process {
  const process = object(nulls ? withoutNulls(value) : value, "process");
  strings(process.args, "process.args");
  strings(process.env, "process.env");
  if (!Array.isArray(process.args) || process.args.length === 0) throw invalidArgument("args must not be empty");
  // What follows from these must not come of a text that looks like a number; shape.ts checks all the rest where it costs nobody time.
  const user = process.user === undefined ? {} : object(process.user, "process.user");
  for (const name of ["uid", "gid", "umask"])
    if (user[name] !== undefined && !Number.isInteger(user[name])) throw invalidArgument(`process.user.${name} must be an integer`);
  if (typeof process.cwd !== "string" || !process.cwd.startsWith("/")) throw invalidArgument("cwd must be an absolute path");
  return process as unknown as Process;
}

export function bundleOf(value: string | undefined): string {
  return resolve(value ?? ".");
}
