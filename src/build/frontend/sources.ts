// Sources as LLB names them: images, the client's directories, addresses, git repositories, OCI layouts.
import { posix } from "node:path";
import type { Platform } from "../../oci/index.ts";
import type { Meta, Output } from "./nodes.ts";

function source(identifier: string, attrs: Record<string, string | undefined>, meta: Meta, platform?: Platform): Output {
  const given = Object.entries(attrs).filter((entry): entry is [string, string] => entry[1] !== undefined);
  const sorted = Object.fromEntries(given.sort(([a], [b]) => (a < b ? -1 : 1)));
  return { node: { op: { case: "source", value: { identifier, attrs: sorted } }, inputs: [], platform, meta }, index: 0 };
}

export function imageSource(ref: string, platform: Platform, meta: Meta, mode: string | undefined): Output {
  return source(`docker-image://${ref}`, { "image.resolvemode": mode }, meta, platform);
}

export interface LocalOptions {
  includePatterns?: readonly string[];
  excludePatterns?: readonly string[];
  followPaths?: readonly string[];
  sharedKeyHint: string;
  /** Files are compared by nothing: always sent. */
  differ?: "none";
}

const listed = (list: readonly string[] | undefined) => (list && list.length > 0 ? JSON.stringify(list) : undefined);

export function localSource(name: string, options: LocalOptions, meta: Meta): Output {
  return source(
    `local://${name}`,
    {
      "local.includepattern": listed(options.includePatterns),
      "local.excludepatterns": listed(options.excludePatterns),
      "local.followpaths": listed(options.followPaths),
      "local.sharedkeyhint": options.sharedKeyHint,
      "local.differ": options.differ,
    },
    meta,
  );
}

export function httpSource(address: string, filename: string, checksum: string | undefined, meta: Meta): Output {
  return source(address, { "http.filename": filename, "http.checksum": checksum }, meta);
}

export function ociLayoutSource(ref: string, store: string, platform: Platform, meta: Meta): Output {
  return source(`oci-layout://${ref}`, { "oci.store": store }, meta, platform);
}

export interface GitReference {
  /** As the client wrote it, without what says which commit. */
  remote: string;
  ref: string;
  subdirectory: string;
  checksum: string | undefined;
  keepGitDir: boolean | undefined;
  submodules: boolean;
}

const SCP = /^(?:([A-Za-z0-9._~-]+)@)?([A-Za-z0-9.-]+):(?!\/\/)(.+)$/;

/**
 * What a text says of a git repository; undefined where it is none. git://, ssh:// and git@host:path always are one, http(s):// where its path ends with ".git", and
 * github.com/… only where `loose` (a build context, not a file's name).
 */
export function gitReference(text: string, loose: boolean): GitReference | undefined {
  const [before = "", fragment = ""] = [text.split("#", 1)[0], text.slice(text.indexOf("#") + 1)];
  const hash = text.includes("#") ? fragment : "";
  const [remote = "", query = ""] = [before.split("?", 1)[0], before.includes("?") ? before.slice(before.indexOf("?") + 1) : ""];
  const isGit =
    /^(git|ssh):\/\//i.test(remote) ||
    (/^https?:\/\//i.test(remote) && /\.git$/.test(remote)) ||
    (/^git@/.test(remote) && SCP.test(remote)) ||
    (loose && remote.startsWith("github.com/"));
  if (!isGit) return undefined;
  const params = new URLSearchParams(query);
  const colon = hash.indexOf(":");
  const ref = colon < 0 ? hash : hash.slice(0, colon);
  const branch = params.get("branch");
  const tag = params.get("tag");
  const named = branch === null ? (tag === null ? undefined : `refs/tags/${tag}`) : `refs/heads/${branch}`;
  const keep = params.get("keep-git-dir");
  return {
    remote: remote.startsWith("github.com/") ? `https://${remote}` : remote,
    ref: ref || params.get("ref") || named || "",
    subdirectory: (colon < 0 ? "" : hash.slice(colon + 1)) || params.get("subdir") || "",
    checksum: params.get("checksum") ?? params.get("commit") ?? undefined,
    keepGitDir: keep === null ? undefined : keep !== "false" && keep !== "0",
    submodules: !["false", "0"].includes(params.get("submodules") ?? "true"),
  };
}

/** Host and path of a repository's address, without who asks. */
function placeOf(remote: string): string {
  const scp = remote.includes("://") ? null : SCP.exec(remote);
  if (scp) return `${scp[2]}${posix.join("/", scp[3]!)}`;
  const address = new URL(remote);
  return `${address.host}${address.pathname}`;
}

export function gitSource(git: GitReference, keepGitDir: boolean, meta: Meta): Output {
  const commit = git.subdirectory ? `${git.ref}:${git.subdirectory}` : git.ref;
  const ssh = git.remote.startsWith("ssh://") || !git.remote.includes("://");
  return source(
    `git://${placeOf(git.remote)}${commit ? `#${commit}` : ""}`,
    {
      "git.fullurl": git.remote,
      "git.keepgitdir": (git.keepGitDir ?? keepGitDir) ? "true" : undefined,
      "git.checksum": git.checksum,
      "git.skipsubmodules": git.submodules ? undefined : "true",
      "git.authheadersecret": "GIT_AUTH_HEADER",
      "git.authtokensecret": "GIT_AUTH_TOKEN",
      "git.mountsshsock": ssh ? "default" : undefined,
    },
    meta,
  );
}

export const isAddress = (text: string) => /^https?:\/\//i.test(text);

/** The name that a file gets which comes from an address. */
export function nameOfAddress(address: string): string {
  try {
    const name = posix.basename(decodeURIComponent(new URL(address).pathname));
    return name === "" || name === "/" || name === "." || name === ".." ? "__unnamed__" : name.replace(/[/\0]/g, "_");
  } catch {
    return "__unnamed__";
  }
}
