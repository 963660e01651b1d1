// Results as files: one tree of all platforms' trees and what is attested of them, for a directory or a tar.
import { Readable } from "node:stream";
import { invalidArgument } from "../../lib/errors.ts";
import { TAR_END, type TarHeader, type TarType, tarHeader, tarPadding } from "../../oci/index.ts";
import type { FileInfo, FileTree, Result } from "../session.ts";
import { fileTree } from "../solve/view.ts";
import { type Statement, statementJson } from "./attestations.ts";
import type { ExportContext } from "./context.ts";
import { attestationsOf, partsOf } from "./image.ts";
import { isTrue } from "./options.ts";

const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;

const plainFile = (path: string, mode: number, size: number, mtime: bigint): FileInfo => ({
  path,
  mode,
  uid: 0,
  gid: 0,
  size,
  mtime,
  linkname: "",
  devmajor: 0,
  devminor: 0,
  xattrs: {},
});

interface Branch {
  /** The platform's. */
  name: string;
  /** "" is the top. */
  prefix: string;
  tree: FileTree;
  extra: Map<string, Uint8Array>;
}

/** Trees below directories of one tree, with further files at their tops. */
function joined(branches: readonly Branch[], epoch: number | undefined): FileTree {
  const stamp = epoch === undefined ? undefined : BigInt(epoch) * 1_000_000_000n;
  const now = stamp ?? BigInt(Date.now()) * 1_000_000n;
  const timed = (info: FileInfo): FileInfo => (stamp === undefined ? info : { ...info, mtime: stamp });
  async function* branchEntries({ prefix, tree, extra }: Branch): AsyncGenerator<FileInfo> {
    const below = (path: string) => (prefix === "" ? path : `${prefix}/${path}`);
    const waiting = [...extra].sort(([a], [b]) => (a < b ? -1 : 1));
    const next = (before: string | undefined): FileInfo[] => {
      const found: FileInfo[] = [];
      while (waiting[0] && (before === undefined || waiting[0][0] < before)) {
        const [name, bytes] = waiting.shift()!;
        found.push(plainFile(below(name), S_IFREG | 0o600, bytes.length, now));
      }
      return found;
    };
    for await (const info of tree.entries()) {
      // what the tree has under the same name gives way
      if (extra.has(info.path)) continue;
      if (!info.path.includes("/")) yield* next(info.path);
      const hard = info.linkname !== "" && (info.mode & 0o170000) === S_IFREG;
      yield timed({ ...info, path: below(info.path), ...(hard ? { linkname: below(info.linkname) } : {}) });
    }
    yield* next(undefined);
  }
  const sorted = [...branches].sort((a, b) => (a.prefix < b.prefix ? -1 : 1));
  return {
    entries: () => ({
      async *[Symbol.asyncIterator]() {
        for (const branch of sorted) {
          if (branch.prefix !== "") yield plainFile(branch.prefix, S_IFDIR | 0o755, 0, now);
          yield* branchEntries(branch);
        }
      },
    }),
    async open(path) {
      const branch = sorted.find(({ prefix }) => prefix === "" || path.startsWith(`${prefix}/`))!;
      const inner = branch.prefix === "" ? path : path.slice(branch.prefix.length + 1);
      const bytes = branch.extra.get(inner);
      return bytes ? Readable.from([bytes]) : branch.tree.open(inner);
    },
  };
}

/** Trees upon each other. InvalidArgument where two have a file of the same name. */
async function overlaid(branches: readonly Branch[], epoch: number | undefined): Promise<FileTree> {
  const found = new Map<string, { info: FileInfo; branch: Branch; tree: FileTree }>();
  for (const branch of branches) {
    const tree = joined([branch], epoch);
    for await (const info of tree.entries()) {
      const { path } = info;
      const before = found.get(path);
      const directories = [before?.info, info].every((each) => ((each?.mode ?? 0) & 0o170000) === S_IFDIR);
      if (before && !directories)
        throw invalidArgument(`cannot overwrite ${path} from ${before.branch.name} with ${branch.name} when split option is disabled`);
      if (!before) found.set(path, { info, branch, tree });
    }
  }
  // the order of a walk: what is in a directory comes before what is named after it
  const walked = (path: string) => path.replaceAll("/", "\0");
  const sorted = [...found.values()].sort((a, b) => (walked(a.info.path) < walked(b.info.path) ? -1 : 1));
  return {
    entries: () => ({
      async *[Symbol.asyncIterator]() {
        for (const { info } of sorted) yield info;
      },
    }),
    open: (path) => found.get(path)!.tree.open(path),
  };
}

/** Files that say what a tree has, as the subjects of its attestations. */
async function subjectsOf(tree: FileTree): Promise<{ name: string; digest: string }[]> {
  const { createHash } = await import("node:crypto");
  const found: { name: string; digest: string }[] = [];
  for await (const { path, mode, linkname } of tree.entries()) {
    if ((mode & 0o170000) !== S_IFREG || linkname !== "") continue;
    const hash = createHash("sha256");
    for await (const piece of await tree.open(path)) hash.update(piece as Uint8Array);
    found.push({ name: path, digest: `sha256:${hash.digest("hex")}` });
  }
  return found;
}

/** Gives the result as one tree while `work` lasts. Several platforms have a directory each, unless `platform-split` says otherwise. */
export async function withResultTree<T>(
  context: ExportContext,
  result: Result,
  attrs: Record<string, string>,
  work: (tree: FileTree) => Promise<T>,
): Promise<T> {
  const parts = await partsOf(context, result);
  const split = isTrue(attrs, "platform-split", result.refs.size > 0);
  const prefix = attrs["attestation-prefix"] ?? "";
  const build = async (left: typeof parts, done: Branch[]): Promise<T> => {
    const [part, ...rest] = left;
    if (!part) return work(split || done.length < 2 ? joined(done, context.epoch) : await overlaid(done, context.epoch));
    return context.workspace.reading(part.tree, async ({ root }) => {
      const tree = fileTree(root);
      const extra = new Map<string, Uint8Array>();
      const statements: Statement[] = await attestationsOf(context, result, part, { image: false, inline: false });
      if (statements.length > 0) {
        const about = await subjectsOf(tree);
        for (const statement of statements) {
          const dot = statement.path.lastIndexOf(".");
          const [base, ending] = dot < 0 ? [statement.path, ""] : [statement.path.slice(0, dot), statement.path.slice(dot)];
          const where = split || result.refs.size === 0 ? "" : `.${part.name.replace(/\//g, "_")}`;
          const name = `${prefix}${base}${where}${ending}`;
          if (extra.has(name)) throw invalidArgument(`duplicate attestation path name ${name}`);
          extra.set(name, Buffer.from(JSON.stringify(statementJson(statement, about), undefined, 2)));
        }
      }
      const place = split ? part.name.replace(/\//g, "_") : "";
      return build(rest, [...done, { name: part.name, prefix: place, tree, extra }]);
    });
  };
  return build(parts, []);
}

const TYPES = new Map<number, TarType>([
  [S_IFREG, "file"],
  [S_IFDIR, "directory"],
  [0o120000, "symlink"],
  [0o020000, "char"],
  [0o060000, "block"],
  [0o010000, "fifo"],
]);

/** A tree as a tar. */
export async function* treeTar(tree: FileTree): AsyncGenerator<Uint8Array, void> {
  const bytes = (text: string) => Buffer.from(text).toString("latin1");
  for await (const info of tree.entries()) {
    const type = TYPES.get(info.mode & 0o170000);
    if (!type) continue;
    const hard = type === "file" && info.linkname !== "";
    const size = type === "file" && !hard ? info.size : 0;
    const seconds = info.mtime / 1_000_000_000n;
    const header: TarHeader = {
      type: hard ? "link" : type,
      name: bytes(info.path),
      linkname: bytes(info.linkname),
      mode: info.mode & 0o7777,
      uid: info.uid,
      gid: info.gid,
      size,
      mtimeSec: Number(seconds),
      mtimeNsec: Number(info.mtime - seconds * 1_000_000_000n),
      major: info.devmajor,
      minor: info.devminor,
      xattrs: hard ? [] : Object.entries(info.xattrs).map(([name, value]) => [name, Buffer.from(value).toString("latin1")]),
    };
    yield tarHeader(header);
    if (size === 0) continue;
    let left = size;
    for await (const piece of await tree.open(info.path)) {
      const part = (piece as Uint8Array).subarray(0, left);
      left -= part.length;
      yield part;
    }
    // a file that was cut in the meantime keeps its length
    for (; left > 0; left -= Math.min(left, 1 << 16)) yield new Uint8Array(Math.min(left, 1 << 16));
    yield tarPadding(size);
  }
  yield TAR_END;
}

/** Files at hand and blobs by their paths as one tree. */
export function blobTree(files: ReadonlyMap<string, { size: number; open(): Readable }>): FileTree {
  const directories = new Set<string>();
  for (const path of files.keys())
    for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1)) directories.add(path.slice(0, at));
  const paths = [...directories, ...files.keys()].sort((a, b) => (a.replaceAll("/", "\0") < b.replaceAll("/", "\0") ? -1 : 1));
  return {
    entries: () => ({
      async *[Symbol.asyncIterator]() {
        for (const path of paths) {
          const file = files.get(path);
          yield file ? plainFile(path, S_IFREG | 0o644, file.size, 0n) : plainFile(path, S_IFDIR | 0o755, 0, 0n);
        }
      },
    }),
    open: async (path) => files.get(path)!.open(),
  };
}

export const sizedFile = (bytes: Uint8Array) => ({ size: bytes.length, open: () => Readable.from([bytes]) });
