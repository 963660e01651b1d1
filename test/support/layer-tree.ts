// What an image's own layers (those above its base) do to a tree, read from the registry that it was pushed to: kind, mode, owner, size, content, target,
// device, extended attributes, which names are one file, and times where they are not the build's own.
import { createHash } from "node:crypto";
import { createGunzip, zstdDecompressSync } from "node:zlib";
import { createTarReader, type TarEntry } from "../../src/oci/index.ts";

export interface PushedImage {
  config: Record<string, unknown>;
  /** How many layers are above the base's. */
  own: number;
  changes: Record<string, string>;
}

interface Manifest {
  mediaType?: string;
  manifests?: { digest: string; platform?: { os: string } }[];
  config: { digest: string };
  layers: { digest: string; mediaType: string }[];
}

const ACCEPT = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
  "application/vnd.docker.distribution.manifest.v2+json",
].join(",");

async function manifestOf(address: string, repository: string, reference: string): Promise<Manifest> {
  const answer = await fetch(`http://${address}/v2/${repository}/manifests/${reference}`, { headers: { accept: ACCEPT } });
  if (!answer.ok) throw new Error(`${repository}:${reference}: ${answer.status}`);
  const manifest = (await answer.json()) as Manifest;
  const image = manifest.manifests?.find(({ platform }) => platform?.os !== "unknown");
  return image ? manifestOf(address, repository, image.digest) : manifest;
}

const blobOf = async (address: string, repository: string, digest: string): Promise<Buffer> =>
  Buffer.from(await (await fetch(`http://${address}/v2/${repository}/blobs/${digest}`)).arrayBuffer());

async function plain(bytes: Buffer): Promise<Buffer> {
  if (bytes.readUInt32LE(0) === 0xfd2fb528) return zstdDecompressSync(bytes);
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  // layers of Docker end in more zeros than gunzipSync takes
  return Buffer.concat(await createGunzip().end(bytes).toArray());
}

interface Found {
  entry: TarEntry;
  hash: string;
}

function entriesOf(tar: Buffer): Found[] {
  const found: Found[] = [];
  let hash = createHash("sha256");
  const reader = createTarReader({
    entry(entry) {
      found.push({ entry, hash: "" });
      hash = createHash("sha256");
    },
    data(buffer, offset, length) {
      hash.update(buffer.subarray(offset, offset + length));
    },
    hole(length) {
      hash.update(Buffer.alloc(length));
    },
    finish() {
      found.at(-1)!.hash = hash.digest("hex").slice(0, 16);
    },
  });
  reader.push(tar, 0, tar.length);
  reader.end();
  return found;
}

/** A line for each path: what is there. */
export type Tree = Map<string, string>;

/** Applies a layer (an uncompressed tar) to a tree. Times from `began` (seconds since 1970) on are all called "new". */
export function applyToTree(tree: Tree, tar: Buffer, began = Number.POSITIVE_INFINITY): void {
  const forget = (at: string) => {
    for (const path of [...tree.keys()]) if (path.startsWith(at === "" ? "" : `${at}/`)) tree.delete(path);
  };
  for (const { entry, hash } of entriesOf(tar)) {
    const path = entry.name.replace(/^(\.?\/)+/, "").replace(/\/$/, "");
    if (path === "" || path === ".") continue;
    const slash = path.lastIndexOf("/") + 1;
    const [at, name] = [path.slice(0, slash), path.slice(slash)];
    const gone = name === ".wh..wh..opq" ? at.slice(0, -1) : name.startsWith(".wh.") ? at + name.slice(4) : undefined;
    if (gone !== undefined) {
      forget(gone);
      if (name !== ".wh..wh..opq") tree.delete(gone);
      continue;
    }
    const what: Record<string, string> = {
      file: `${entry.size} ${hash}`,
      symlink: `-> ${entry.linkname}`,
      link: `= ${entry.linkname.replace(/^(\.?\/)+/, "")}`,
      char: `${entry.major}:${entry.minor}`,
      block: `${entry.major}:${entry.minor}`,
      directory: "",
      fifo: "",
    };
    const owner = `${(entry.mode & 0o7777).toString(8)} ${entry.uid}:${entry.gid}`;
    const time = entry.mtimeSec >= began ? "new" : String(entry.mtimeSec);
    const attributes = (entry.xattrs ?? []).map(([key, value]) => `${key}=${Buffer.from(value, "latin1").toString("hex")}`).sort();
    // what is no directory takes with it what it replaces
    if (entry.type !== "directory" && tree.get(path)?.startsWith("directory")) forget(path);
    tree.set(
      path,
      [entry.type, entry.type === "link" ? "" : `${owner} ${time}`, what[entry.type], ...attributes].filter(Boolean).join(" "),
    );
  }
}

/** What is not as it is in the base; "deleted" where it is not there any more. A file that was only opened for writing is in some builders' layers, and here not. */
export async function pushedImage(
  address: string,
  repository: string,
  reference: string,
  base: { diffIds: string[]; tree: Record<string, string> },
  began: number,
): Promise<PushedImage> {
  const manifest = await manifestOf(address, repository, reference);
  const image = JSON.parse((await blobOf(address, repository, manifest.config.digest)).toString()) as {
    config: Record<string, unknown>;
    rootfs: { diff_ids: string[] };
  };
  const diffIds = image.rootfs.diff_ids ?? [];
  const onBase = base.diffIds.every((diffId, i) => diffIds[i] === diffId);
  const below: Record<string, string> = onBase ? base.tree : {};
  const own = manifest.layers.slice(onBase ? base.diffIds.length : 0);
  const tree: Tree = new Map(Object.entries(below));
  for (const layer of own) applyToTree(tree, await plain(await blobOf(address, repository, layer.digest)), began);
  // What builders mount in /etc while a step runs changes the directory's time, in some of them for later steps as well: no change of the step's own.
  const timeless = (line: string | undefined) => line?.replace(/ (new|\d+)$/, "");
  if (below.etc !== undefined && timeless(tree.get("etc")) === timeless(below.etc)) tree.set("etc", below.etc);
  const changes = [...tree].filter(([path, line]) => below[path] !== line);
  const deleted = Object.keys(below).filter((path) => !tree.has(path));
  return {
    config: image.config,
    own: own.length,
    changes: Object.fromEntries([...changes, ...deleted.map((path): [string, string] => [path, "deleted"])].sort()),
  };
}
