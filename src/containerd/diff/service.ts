// The diff service: Apply unpacks a layer into a snapshot, Diff makes a layer of what a snapshot changed. Unpacking happens in worker threads, in
// one pass, straight into the snapshot's own directory: nothing is mounted.
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { createZstdCompress } from "node:zlib";
import { Diff } from "../../gen/containerd/services/diff/v1_pb.ts";
import { Failure, invalidArgument, isKind, unimplemented } from "../../lib/errors.ts";
import { applyLayer, gzipped } from "../../oci/index.ts";
import type { ContentStore } from "../content/store.ts";
import { type Call, namespaceOf, required, type Service, service } from "../service.ts";
import { layersOf } from "../snapshots/detached.ts";

const TAR = "application/vnd.oci.image.layer.v1.tar";
const plain = new Set([TAR, "application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.foreign.diff.tar"]);
const gzip = new Set([`${TAR}+gzip`, "application/vnd.docker.image.rootfs.diff.tar.gzip"]);
const zstd = new Set([`${TAR}+zstd`, "application/vnd.docker.image.rootfs.diff.tar.zstd"]);

const isLayer = (mediaType: string): boolean =>
  /^application\/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+(gzip|zstd))?|docker\.image\.rootfs\.(foreign\.)?diff\.tar(\.(gzip|zstd))?)$/.test(
    mediaType,
  );

export function diffService(content: ContentStore): Service {
  return service(Diff, {
    async apply({ diff, mounts, syncFs }, call) {
      const namespace = namespaceOf(call);
      const descriptor = required(diff, "diff");
      if (!isLayer(descriptor.mediaType)) throw unimplemented(`unsupported diff media type: ${descriptor.mediaType}`);
      const file = content.path(namespace, descriptor.digest);
      const { layers, upper } = layersOf(mounts);
      if (upper === undefined) throw invalidArgument("a layer can be applied to an active snapshot only");
      const { diffId, bytes } = await applyLayer({
        file,
        root: upper,
        whiteouts: mounts[0]!.type === "overlay" ? "overlay" : "remove",
        parents: layers.slice(1),
        signal: call.signal,
      });
      if (syncFs) await syncFileSystem(upper);
      return { applied: { mediaType: TAR, digest: diffId, size: BigInt(bytes) } };
    },
    diff: async ({ left, right, mediaType, ref, labels, sourceDateEpoch }, call) => {
      const wanted = mediaType === "" ? `${TAR}+gzip` : mediaType;
      if (![plain, gzip, zstd].some((types) => types.has(wanted))) throw unimplemented(`unsupported diff media type: ${wanted}`);
      const { layerTar } = await import("./layer-tar.ts");
      const epoch = sourceDateEpoch ? Number(sourceDateEpoch.seconds) : undefined;
      const tar = layerTar(layersOf(left).layers, layersOf(right).layers, { epoch, signal: call.signal });
      return { diff: await store(content, tar, { mediaType: wanted, ref, labels }, call) };
    },
  });
}

/** syncfs(2), which node:fs lacks and which must not hold up the event loop, by the program that does it. */
function syncFileSystem(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    execFile("sync", ["-f", path], (error) => {
      if (error) reject(new Failure("Unknown", `sync the file system of ${path}: ${error.message}`, { cause: error }));
      else resolve();
    });
  });
}

function compressed(tar: AsyncIterable<Uint8Array>, mediaType: string): AsyncIterable<Uint8Array> {
  if (gzip.has(mediaType)) return gzipped(tar);
  if (!zstd.has(mediaType)) return tar;
  const input = Readable.from(tar, { objectMode: false });
  const compressor = createZstdCompress();
  input.on("error", (error) => compressor.destroy(error));
  return input.pipe(compressor);
}

let references = 0;

/** Writes a layer to the content store, compressed where its media type says so; the digest of the tar inside becomes a label. */
async function store(
  content: ContentStore,
  tar: AsyncIterable<Uint8Array>,
  { mediaType, ref, labels }: { mediaType: string; ref: string; labels: Record<string, string> },
  call: Call,
): Promise<{ mediaType: string; digest: string; size: bigint }> {
  const namespace = namespaceOf(call);
  const writer = await content.writer({
    namespace,
    ref: ref || `diff-${process.pid}-${Date.now()}-${references++}`,
    expected: "",
    total: 0,
    lease: call.lease,
  });
  try {
    if (writer.status().offset > 0) await writer.restart();
    const inside = createHash("sha256");
    const hashed = (async function* () {
      for await (const piece of tar) {
        inside.update(piece);
        yield piece;
      }
    })();
    for await (const piece of compressed(hashed, mediaType)) await writer.write(piece);
    const size = writer.status().offset;
    const own = { ...labels, "containerd.io/uncompressed": `sha256:${inside.digest("hex")}` };
    const digest = writer.digest();
    try {
      await writer.commit({ size, expected: "", labels: own });
    } catch (error) {
      if (!isKind(error, "AlreadyExists")) throw error;
      content.setLabels(namespace, digest, (current) => ({ ...current, ...own }));
    }
    return { mediaType, digest, size: BigInt(size) };
  } finally {
    await writer.close();
  }
}
