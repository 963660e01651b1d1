// File operations on a tree that is open by descriptor: copy, mkdir, mkfile, rm, symlink, as LLB says them. And the digest of what a copy would take.
import { createReadStream } from "node:fs";
import { posix } from "node:path";
import type { ChownOpt, FileAction, FileActionCopy, FileActionMkFile, FileActionRm, FileActionSymlink } from "../../gen/pb_pb.ts";
import { invalidArgument, isKind, notFound } from "../../lib/errors.ts";
import { close, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_PATH, O_RDONLY, O_WRONLY, RESOLVE_IN_ROOT, read } from "../../linux/index.ts";
import { files, plainHead } from "../../oci/index.ts";
import { createMatcher } from "../dockerfile/index.ts";
import type { BuilderHost } from "../host.ts";
import { copySource } from "./copy.ts";
import { modeChange } from "./mode.ts";
import { ownerOf } from "./owner.ts";
import {
  ALL,
  bytesOf,
  findSources,
  hashSource,
  isDirectory,
  makeDirectories,
  must,
  newHash,
  openDirectory,
  removeAll,
  type Selection,
  type Source,
  type Times,
} from "./tree.ts";
import type { OpenTree } from "./workspace.ts";

const BLOCK = 512;
const ROOT = { uid: 0, gid: 0 };

const relative = (pattern: string) => pattern.replace(/^(!?)\//, "$1");

function selectionOf(action: FileActionCopy): Selection {
  if (action.excludePatterns.length === 0 && action.includePatterns.length === 0) return ALL;
  return {
    excluded: action.excludePatterns.length === 0 ? ALL.excluded : createMatcher(action.excludePatterns.map(relative)),
    included: action.includePatterns.length === 0 ? undefined : createMatcher(action.includePatterns.map(relative)),
  };
}

function sourcesOf(action: FileActionCopy, tree: OpenTree): Source[] {
  const missing = tree.outside
    ? "COPY failed: file not found in build context or excluded by .dockerignore: stat %: file does not exist"
    : "COPY failed: stat %: file does not exist";
  for (const path of action.requiredPaths) findSources(tree.root, path, missing, { wildcard: false });
  const sources = findSources(tree.root, action.src, missing, { wildcard: action.allowWildcard, follow: action.followSymlink });
  // An include pattern of a directory is a selection, and may select nothing; of Docker's COPY, a pattern must find something.
  if (sources.length === 0 && !action.allowEmptyWildcard) throw notFound(missing.replace("%", action.src));
  return sources;
}

/** More files than these are told as one. */
const MAX_TOLD = 200;

/** Digest of what a copy would take, and of each of its files where they are few. */
export async function copyDigest(action: FileActionCopy, tree: OpenTree): Promise<{ digest: string; files: ReadonlyMap<string, string> }> {
  const hash = newHash();
  const selection = selectionOf(action);
  const told = new Map<string, string>();
  const onFile = (path: string, digest: string) => {
    if (told.size <= MAX_TOLD) told.set(path, digest);
  };
  const options = { onFile, remembering: tree.outside };
  for (const source of sourcesOf(action, tree)) await hashSource(hash, tree.root, source, !action.owner, selection, options);
  if (told.size > MAX_TOLD) told.clear();
  return { digest: hash.digest("hex"), files: told };
}

/** Digest of all that is at a path. */
export async function pathDigest(path: string, tree: OpenTree, owners: boolean): Promise<string> {
  const hash = newHash();
  for (const source of findSources(tree.root, path, "failed to compute cache key: %: not found", { wildcard: false }))
    await hashSource(hash, tree.root, source, owners, ALL, { remembering: tree.outside });
  return hash.digest("hex");
}

/** Whether a file is a tar archive, also a compressed one; a wrong guess of neither. */
function isArchive(root: number, path: string): boolean {
  const fd = files.openIn(root, path, O_RDONLY, RESOLVE_IN_ROOT);
  if (fd < 0) return false;
  try {
    const head = plainHead((buffer) => read(fd, buffer) ?? 0, BLOCK);
    if (head.length < BLOCK) return false;
    let sum = 8 * 0x20;
    for (let i = 0; i < BLOCK; i++) if (i < 148 || i >= 156) sum += head[i]!;
    return sum > 8 * 0x20 && Number.parseInt(Buffer.from(head).toString("latin1", 148, 156).replace(/[\0 ]/g, " ").trim(), 8) === sum;
  } catch {
    return false;
  } finally {
    close(fd);
  }
}

/** Whether there is a directory at a path. */
function isDirectoryAt(root: number, path: string): boolean {
  const fd = files.openIn(root, path === "" ? "." : path, O_PATH, RESOLVE_IN_ROOT);
  if (fd < 0) return false;
  const directory = isDirectory(files.statOf(fd));
  close(fd);
  return directory;
}

function timesOf(timestamp: bigint): Times | undefined {
  if (timestamp < 0n) return undefined;
  return { sec: Number(timestamp / 1_000_000_000n), nsec: Number(timestamp % 1_000_000_000n) };
}

const ownerIn = (root: number, owner: ChownOpt | undefined) => (owner ? ownerOf(owner, root) : undefined);

/** A path of an action below the root, as bytes. */
const pathOf = (path: string): string => bytesOf(posix.join("/", path).slice(1).replace(/\/$/, ""));

async function copy(host: BuilderHost, root: number, action: FileActionCopy, tree: OpenTree): Promise<void> {
  const owner = ownerIn(root, action.owner);
  const times = timesOf(action.timestamp);
  const mode = modeChange(action.mode, action.modeStr);
  const selection = selectionOf(action);
  const options = { owner, mode, selection, times, replace: action.alwaysReplaceExistingDestPaths };
  const made = owner ?? ROOT;
  const sources = sourcesOf(action, tree);
  const target = pathOf(action.dest);
  const into = action.dest.endsWith("/") || sources.length > 1 || isDirectoryAt(root, target);
  // As in BuildKit, directories that are made on the way have the mode, too, where it is a number, but for its set-id bits.
  const modeOnTheWay = mode && /^[0-7]*$/.test(action.modeStr) ? mode(0o755, true) & 0o777 : 0o755;
  const directoryAt = (path: string): number => {
    if (action.createDestPath) return makeDirectories(root, path, made, modeOnTheWay, times);
    const fd = openDirectory(root, path);
    if (fd < 0) throw notFound(`lstat /${files.shown(path)}: no such file or directory`);
    return fd;
  };
  for (const source of sources) {
    if (source.directory && action.dirCopyContents) {
      let directory = openDirectory(root, target);
      if (directory < 0 && action.alwaysReplaceExistingDestPaths && target !== "") {
        const above = directoryAt(posix.dirname(target));
        removeAll(above, posix.basename(target));
        close(above);
      }
      if (directory < 0) directory = makeDirectories(root, target, made, modeOnTheWay, times);
      try {
        await copySource(tree.root, source, directory, undefined, options);
      } finally {
        close(directory);
      }
    } else if (!source.directory && action.attemptUnpackDockerCompatibility && isArchive(tree.root, source.path)) {
      const directory = makeDirectories(root, target, made);
      try {
        const fd = must(files.openIn(tree.root, source.path, O_RDONLY, RESOLVE_IN_ROOT), "open", source.path);
        await host.unpack(directory, createReadStream("", { fd }), owner);
      } finally {
        close(directory);
      }
    } else {
      const name = into ? posix.basename(source.path) || posix.basename(pathOf(action.src)) : posix.basename(target);
      const above = directoryAt(into ? target : posix.dirname(target));
      try {
        // the root itself, or something to a place without a name
        if (name === "" || name === ".") await copySource(tree.root, source, above, undefined, options);
        else await copySource(tree.root, source, above, name, options);
      } finally {
        close(above);
      }
    }
  }
}

/** The directory above a path that must be there, and the last name. */
function aboveOf(root: number, path: string): { above: number; name: string } {
  const target = pathOf(path);
  if (target === "") throw invalidArgument(`invalid path ${path} of a file operation`);
  const above = openDirectory(root, posix.dirname(target));
  if (above < 0) throw notFound(`lstat /${files.shown(posix.dirname(target))}: no such file or directory`);
  return { above, name: posix.basename(target) };
}

function makeFile(root: number, action: FileActionMkFile): void {
  const owner = ownerIn(root, action.owner) ?? ROOT;
  const { above, name } = aboveOf(root, action.path);
  try {
    removeAll(above, name);
    const fd = must(files.openAt(above, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600), "create", name);
    try {
      must(files.writeAll(fd, action.data, 0, action.data.length), "write", name);
      must(files.fchown(fd, owner.uid, owner.gid), "chown", name);
      must(files.fchmod(fd, action.mode & 0o7777), "chmod", name);
      const times = timesOf(action.timestamp);
      if (times) files.timesOf(fd, times.sec, times.nsec);
    } finally {
      close(fd);
    }
  } finally {
    close(above);
  }
}

function remove(root: number, action: FileActionRm): void {
  const found = findSources(root, action.path, "rm: %: no such file or directory", { wildcard: action.allowWildcard, follow: false }).map(
    ({ path }) => path,
  );
  for (const path of found) {
    const above = openDirectory(root, posix.dirname(path));
    if (above < 0) continue;
    try {
      if (path === "") for (const { name } of files.readDirectory(above)) removeAll(above, name);
      else removeAll(above, posix.basename(path));
    } finally {
      close(above);
    }
  }
}

function symlink(root: number, action: FileActionSymlink): void {
  const owner = ownerIn(root, action.owner) ?? ROOT;
  const { above, name } = aboveOf(root, action.newpath);
  try {
    must(files.symlinkAt(bytesOf(action.oldpath), above, name), "symlink", name);
    must(files.chownAt(above, name, owner.uid, owner.gid), "chown", name);
    const times = timesOf(action.timestamp);
    if (times) files.timesAt(above, name, times.sec, times.nsec);
  } finally {
    close(above);
  }
}

/** Performs actions, one after another, on the tree `mount` (any directory descriptor). `sourceOf` gives what a copy takes from. */
export async function performActions(
  host: BuilderHost,
  mount: number,
  actions: readonly FileAction[],
  sourceOf: (action: FileAction) => OpenTree,
): Promise<void> {
  const root = must(files.openIn(mount, ".", O_RDONLY | O_DIRECTORY, RESOLVE_IN_ROOT), "open", "/");
  try {
    for (const each of actions) {
      const { action } = each;
      if (action.case === "copy") await copy(host, root, action.value, sourceOf(each));
      else if (action.case === "mkfile") makeFile(root, action.value);
      else if (action.case === "mkdir") {
        const { path, mode, makeParents, owner, timestamp } = action.value;
        if (!makeParents && pathOf(path) !== "") close(aboveOf(root, path).above);
        close(makeDirectories(root, pathOf(path), ownerIn(root, owner) ?? ROOT, mode & 0o7777, timesOf(timestamp)));
      } else if (action.case === "symlink") symlink(root, action.value);
      else if (action.case === "rm") {
        try {
          remove(root, action.value);
        } catch (error) {
          if (!action.value.allowNotFound || !isKind(error, "NotFound")) throw error;
        }
      }
    }
  } finally {
    close(root);
  }
}
