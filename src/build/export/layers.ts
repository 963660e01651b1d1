// Layers in the form that an export wants. A layer that was compressed once is remembered by a label of the plain one, which also keeps it as long.
import { PassThrough, pipeline } from "node:stream";
import { createGunzip, createGzip, createZstdCompress, createZstdDecompress, constants as zlib } from "node:zlib";
import { unimplemented } from "../../lib/errors.ts";
import { type Compression, gzipped, layerType } from "../../oci/index.ts";
import { hasBlob, streamBlob, writeBlob } from "../content.ts";
import type { BuilderHost, Layer, Lease } from "../host.ts";

type Target = Extract<Compression, "gzip" | "zstd" | "none">;

export interface LayerOptions {
  host: BuilderHost;
  lease: Lease;
  /** Undefined: as they are. */
  compression: Target | undefined;
  level: number | undefined;
  force: boolean;
  ociTypes: boolean;
  signal: AbortSignal;
}

function compressionOf(mediaType: string): Compression {
  if (/[+.]gzip$/.test(mediaType)) return "gzip";
  return /[+.]zstd$/.test(mediaType) ? "zstd" : "none";
}

function piped(source: AsyncIterable<Uint8Array>, ...stages: NodeJS.ReadWriteStream[]): AsyncIterable<Uint8Array> {
  const out = new PassThrough();
  // an error of any stage is the reader's
  pipeline([source, ...stages, out] as never, () => {});
  return out as AsyncIterable<Uint8Array>;
}

function compressed(source: AsyncIterable<Uint8Array>, to: Target, level: number | undefined): AsyncIterable<Uint8Array> {
  if (to === "none") return source;
  if (to === "gzip") return level === undefined ? gzipped(source) : piped(source, createGzip({ level }));
  const params = { [zlib.ZSTD_c_compressionLevel]: level ?? 3, [zlib.ZSTD_c_checksumFlag]: 1 };
  return piped(source, createZstdCompress({ params }));
}

function plain(source: AsyncIterable<Uint8Array>, from: Compression): AsyncIterable<Uint8Array> {
  if (from === "gzip") return piped(source, createGunzip());
  if (from === "zstd") return piped(source, createZstdDecompress());
  if (from === "none") return source;
  throw unimplemented(`layers compressed with ${from}`);
}

/** A layer's tar, whatever it is compressed with. */
export const plainLayer = (source: AsyncIterable<Uint8Array>, mediaType: string): AsyncIterable<Uint8Array> =>
  plain(source, compressionOf(mediaType));

const busy = new Map<string, Promise<Layer>>();

/** The layer as it is wanted, in the content store. One that is compressed already stays so unless it is forced. */
export async function layerAs(layer: Layer, options: LayerOptions): Promise<Layer> {
  const { host, lease, level, force, ociTypes, signal } = options;
  const { manager } = host;
  const have = compressionOf(layer.descriptor.mediaType);
  const dialect = ociTypes ? "oci" : "docker";
  const to = options.compression ?? have;
  if (have === to || (have !== "none" && !force)) {
    const mediaType = have === "gzip" || have === "zstd" || have === "none" ? layerType(have, dialect) : layer.descriptor.mediaType;
    return { ...layer, descriptor: { ...layer.descriptor, mediaType } };
  }
  const wanted = to as Target;
  const name = level === undefined ? wanted : `${wanted}.${level}`;
  const label = `containerd.io/gc.ref.content.${name}`;
  const { digest: own } = layer.descriptor;
  const key = `${own} ${name}`;
  const mediaType = layerType(wanted, dialect);
  const typed = (made: Layer): Layer => ({ ...made, descriptor: { ...made.descriptor, mediaType } });
  const running = busy.get(key)?.catch(() => undefined);
  const shared = await running;
  if (shared && (await hasBlob(manager, shared.descriptor.digest))) return typed(shared);
  const work = (async (): Promise<Layer> => {
    const { info } = await manager.content.info({ digest: own });
    const known = info?.labels[label];
    if (known && (await hasBlob(manager, known))) {
      const size = Number((await manager.content.info({ digest: known })).info!.size);
      return { ...layer, descriptor: { ...layer.descriptor, mediaType, digest: known, size } };
    }
    const labels = { "containerd.io/uncompressed": layer.diffId };
    const source = compressed(plain(streamBlob(manager, own), have), wanted, level);
    const { digest, size } = await writeBlob(manager, source, { mediaType, labels, lease, signal });
    await manager.content.update({ info: { digest: own, labels: { [label]: digest } }, updateMask: { paths: [`labels.${label}`] } });
    return { ...layer, descriptor: { ...layer.descriptor, mediaType, digest, size } };
  })();
  busy.set(key, work);
  const forget = () => void (busy.get(key) === work && busy.delete(key));
  work.then(forget, forget);
  return work;
}
