// File operations on a tree that is open by descriptor: mkdir, mkfile, copy. And the digest of what a copy would take.
import { createReadStream } from "node:fs";
import { posix } from "node:path";
import { notFound } from "../../lib/errors.ts";
import { close, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_PATH, O_RDONLY, O_WRONLY, RESOLVE_IN_ROOT, read } from "../../linux/index.ts";
import { files, plainHead } from "../../oci/index.ts";
import { createMatcher } from "../dockerfile/index.ts";
import type { CopyAction, FileAction, MkfileAction } from "../graph/llb.ts";
import type { BuilderHost } from "../host.ts";
import { ownerOf } from "./owner.ts";
import {
  bytesOf,
  copySource,
  type Excluded,
  findSources,
  hashSource,
  isDirectory,
  makeDirectories,
  must,
  newHash,
  removeAll,
  type Source,
} from "./tree.ts";

const BLOCK = 512;

/** A tree to copy from. */
export interface CopyTree {
  root: number;
  /** A build context, whose missing files are told otherwise than a stage's. */
  context: boolean;
}

function exclusion(action: CopyAction): Excluded {
  return action.exclude.length === 0 ? () => false : createMatcher(action.exclude.map((each) => each.replace(/^\//, "")));
}

function sourcesOf(action: CopyAction, tree: CopyTree): Source[] {
  const missing = tree.context
    ? "COPY failed: file not found in build context or excluded by .dockerignore: stat %: file does not exist"
    : "COPY failed: stat %: file does not exist";
  const sources = action.sources.flatMap((pattern) => findSources(tree.root, pattern, missing));
  if (sources.length === 0) throw notFound("COPY failed: no source files were specified");
  return sources;
}

/** Digest of what an action would copy. */
export async function copyDigest(action: CopyAction, tree: CopyTree): Promise<string> {
  const hash = newHash();
  const excluded = exclusion(action);
  for (const source of sourcesOf(action, tree)) await hashSource(hash, tree.root, source, action.keepOwner, excluded);
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

async function copy(host: BuilderHost, root: number, action: CopyAction, tree: CopyTree): Promise<void> {
  const owner = action.owner === "" ? (action.keepOwner ? undefined : { uid: 0, gid: 0 }) : ownerOf(action.owner, root);
  const options = { owner, mode: action.mode, excluded: exclusion(action) };
  const made = owner ?? { uid: 0, gid: 0 };
  const sources = sourcesOf(action, tree);
  const target = bytesOf(posix.join("/", action.destination).slice(1).replace(/\/$/, ""));
  const into = action.destination.endsWith("/") || sources.length > 1 || isDirectoryAt(root, target);
  for (const source of sources) {
    if (action.parents) {
      const above = makeDirectories(root, posix.join(target, posix.dirname(source.path)), made);
      try {
        await copySource(tree.root, source, above, posix.basename(source.path) || ".", options);
      } finally {
        close(above);
      }
    } else if (source.directory) {
      const directory = makeDirectories(root, target, made);
      try {
        await copySource(tree.root, source, directory, undefined, options);
      } finally {
        close(directory);
      }
    } else if (action.unpack && isArchive(tree.root, source.path)) {
      const directory = makeDirectories(root, target, made);
      try {
        const fd = must(files.openIn(tree.root, source.path, O_RDONLY, RESOLVE_IN_ROOT), "open", source.path);
        await host.unpack(directory, createReadStream("", { fd }), action.owner === "" ? undefined : owner);
      } finally {
        close(directory);
      }
    } else {
      const name = into ? posix.basename(source.path) : posix.basename(target);
      const above = makeDirectories(root, into ? target : posix.dirname(target), made);
      try {
        await copySource(tree.root, source, above, name, options);
      } finally {
        close(above);
      }
    }
  }
}

function makeFile(root: number, action: MkfileAction): void {
  const owner = action.owner === "" ? { uid: 0, gid: 0 } : ownerOf(action.owner, root);
  const target = bytesOf(posix.join("/", action.path).slice(1).replace(/\/$/, ""));
  const into = action.path.endsWith("/") || isDirectoryAt(root, target);
  const name = into ? bytesOf(action.name) : posix.basename(target);
  const above = makeDirectories(root, into ? target : posix.dirname(target), owner);
  try {
    removeAll(above, name);
    const fd = must(files.openAt(above, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600), "create", name);
    try {
      const bytes = Buffer.from(action.content);
      must(files.writeAll(fd, bytes, 0, bytes.length), "write", name);
      must(files.fchown(fd, owner.uid, owner.gid), "chown", name);
      must(files.fchmod(fd, action.mode), "chmod", name);
      files.timesOf(fd, 0, 0);
    } finally {
      close(fd);
    }
  } finally {
    close(above);
  }
}

/** Performs actions on the tree `mount` (any directory descriptor). `treeOf` gives what an input is. */
export async function performActions(
  host: BuilderHost,
  mount: number,
  actions: readonly FileAction[],
  treeOf: (input: number) => CopyTree,
): Promise<void> {
  const root = must(files.openIn(mount, ".", O_RDONLY | O_DIRECTORY, RESOLVE_IN_ROOT), "open", "/");
  try {
    for (const action of actions) {
      if (action.kind === "copy") await copy(host, root, action, treeOf(action.input));
      else if (action.kind === "mkfile") makeFile(root, action);
      else {
        const owner = action.owner === "" ? { uid: 0, gid: 0 } : ownerOf(action.owner, root);
        close(makeDirectories(root, bytesOf(action.path), owner, action.mode));
      }
    }
  } finally {
    close(root);
  }
}
