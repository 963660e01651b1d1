// The attributes that a client sends with a build, parsed once.
import { invalidArgument, messageOf } from "../../lib/errors.ts";
import { formatReference, hostPlatform, type Platform, parsePlatform, parseReference, withDefaultTag } from "../../oci/index.ts";
import { attestsOf } from "../attests.ts";
import { csvFields } from "../dockerfile/index.ts";
import type { RunSettings } from "./run.ts";

export interface FrontendOptions {
  filename: string;
  target: string;
  buildArgs: ReadonlyMap<string, string>;
  labels: Record<string, string>;
  /** Empty: none was asked for. */
  platforms: Platform[];
  multiPlatform: boolean;
  resolveMode: "default" | "pull" | "local";
  /** undefined: the cache is used; empty: by no stage; else not by these stages. */
  noCache: readonly string[] | undefined;
  run: RunSettings;
  /** Contexts by name: "docker-image://…", "local:…", "input:…", "https://…", "oci-layout://…". */
  contexts: ReadonlyMap<string, string>;
  inputMetadata: ReadonlyMap<string, string>;
  /** The main context where it is no directory of the client. */
  context: string | undefined;
  contextKey: string;
  dockerfileKey: string;
  /** The Dockerfile comes from the client, wherever the context is. */
  localDockerfile: boolean;
  subdirectory: string;
  keepGitDir: boolean;
  check: string | undefined;
  /** Seconds; undefined: not given. */
  epoch: number | undefined;
  request: string | undefined;
  /** Generator image of an SBOM; undefined: none is wanted. */
  sbom: { generator: string; attrs: Record<string, string> } | undefined;
}

const MAX_PLATFORMS = 64;
const DEFAULT_GENERATOR = "docker/buildkit-syft-scanner:stable-1";

const bySuffix = (attrs: Readonly<Record<string, string>>, prefix: string): Map<string, string> =>
  new Map(Object.entries(attrs).flatMap(([name, value]) => (name.startsWith(prefix) ? [[name.slice(prefix.length), value] as const] : [])));

const isTrue = (text: string | undefined) => text !== undefined && /^(1|t|true)$/i.test(text);

function hosts(text: string | undefined): RunSettings["extraHosts"] {
  if (!text) return [];
  return csvFields(text).map((field) => {
    const at = field.search(/[=:]/);
    if (at <= 0 || at === field.length - 1) throw invalidArgument(`invalid key-value pair: ${field}`);
    return { Host: field.slice(0, at), IP: field.slice(at + 1) };
  });
}

function ulimits(text: string | undefined): RunSettings["ulimits"] {
  if (!text) return [];
  return csvFields(text).map((field) => {
    const match = /^([a-z]+)=(-?\d{1,18})(?::(-?\d{1,18}))?$/.exec(field);
    if (!match) throw invalidArgument(`invalid ulimit argument: ${field}`);
    const soft = BigInt(match[2]!);
    return { Name: match[1]!, Soft: soft, Hard: match[3] === undefined ? soft : BigInt(match[3]) };
  });
}

function networkOf(text: string | undefined): RunSettings["network"] {
  if (text === undefined || text === "" || text === "default") return "default";
  if (text === "none" || text === "host") return text;
  throw invalidArgument(`invalid network mode ${JSON.stringify(text)}`);
}

const MODES: Record<string, FrontendOptions["resolveMode"]> = {
  "": "default",
  default: "default",
  pull: "pull",
  preferlocal: "default",
  local: "default",
};

export function sbomOf(attrs: Readonly<Record<string, string>>): FrontendOptions["sbom"] {
  const fields = attestsOf(attrs).get("sbom");
  if (!fields) return undefined;
  const given = fields.get("generator") ?? DEFAULT_GENERATOR;
  if (given === "") throw invalidArgument("sbom generator cannot be empty");
  fields.delete("generator");
  try {
    return { generator: formatReference(withDefaultTag(parseReference(given))), attrs: Object.fromEntries(fields) };
  } catch (error) {
    throw invalidArgument(`failed to parse sbom generator ${given}: ${messageOf(error)}`);
  }
}

export function resolveModeOf(attrs: Readonly<Record<string, string>>): FrontendOptions["resolveMode"] {
  const mode = MODES[attrs["image-resolve-mode"] ?? ""];
  if (mode === undefined) throw invalidArgument(`invalid image-resolve-mode: ${attrs["image-resolve-mode"]}`);
  return mode;
}

export function parseOptions(attrs: Readonly<Record<string, string>>): FrontendOptions {
  const buildArgs = bySuffix(attrs, "build-arg:");
  const asked = (attrs.platform ?? "").split(",").filter(Boolean);
  if (asked.length > MAX_PLATFORMS) throw invalidArgument(`a build for more than ${MAX_PLATFORMS} platforms`);
  const platforms = asked.map(parsePlatform);
  const noCache = attrs["no-cache"];
  const shm = attrs["shm-size"] ?? "";
  if (shm !== "" && !/^\d{1,15}$/.test(shm)) throw invalidArgument(`could not parse shm size: ${shm}`);
  const epoch = buildArgs.get("SOURCE_DATE_EPOCH") ?? "";
  if (epoch !== "" && !/^\d{1,12}$/.test(epoch)) throw invalidArgument(`invalid SOURCE_DATE_EPOCH: ${epoch}`);
  const namespace = buildArgs.get("BUILDKIT_CACHE_MOUNT_NS") ?? attrs["cache-ns"] ?? "";
  return {
    filename: attrs.filename || "Dockerfile",
    target: attrs.target ?? "",
    buildArgs,
    labels: Object.fromEntries(bySuffix(attrs, "label:")),
    platforms,
    multiPlatform: platforms.length > 1 || isTrue(attrs["multi-platform"]) || isTrue(buildArgs.get("BUILDKIT_MULTI_PLATFORM")),
    resolveMode: resolveModeOf(attrs),
    noCache: noCache === undefined ? undefined : noCache.split(",").filter(Boolean),
    run: {
      network: networkOf(attrs["force-network-mode"]),
      hostname: buildArgs.get("BUILDKIT_SANDBOX_HOSTNAME") ?? attrs.hostname ?? "",
      extraHosts: hosts(attrs["add-hosts"]),
      ulimits: ulimits(attrs.ulimit),
      cgroupParent: attrs["cgroup-parent"] ?? "",
      shmSize: Number(shm),
      cacheNamespace: namespace,
    },
    contexts: bySuffix(attrs, "context:"),
    inputMetadata: bySuffix(attrs, "input-metadata:"),
    context: attrs.context,
    contextKey: attrs.contextkey ?? "context",
    dockerfileKey: attrs.dockerfilekey ?? "dockerfile",
    localDockerfile: attrs.dockerfilekey !== undefined,
    subdirectory: attrs.contextsubdir ?? "",
    keepGitDir: isTrue(buildArgs.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR")),
    check: buildArgs.get("BUILDKIT_DOCKERFILE_CHECK"),
    epoch: epoch === "" ? undefined : Number(epoch),
    request: attrs.requestid,
    sbom: sbomOf(attrs),
  };
}

/** The platforms that a build is for: those that were asked for, or this machine's. */
export const targetsOf = ({ platforms }: FrontendOptions): Platform[] => (platforms.length > 0 ? platforms : [hostPlatform()]);
