// SOURCE_DATE_EPOCH: layers in which no file is later than that time. Layers keep their times in the cache, so that another epoch has no step run again; what is
// exported is rewritten, and remembered by a label of the layer.
import { createTarReader, TAR_END, type TarEntry, tarHeader, tarPadding } from "../../oci/index.ts";
import { hasBlob, streamBlob, writeBlob } from "../content.ts";
import type { BuilderHost, Layer, Lease } from "../host.ts";
import type { Solved } from "../solve/vertex.ts";
import { plainLayer } from "./layers.ts";

const TAR = "application/vnd.oci.image.layer.v1.tar";

/** The tar with no time later than `epoch`; `changed` is called where one was. */
async function* clamped(tar: AsyncIterable<Uint8Array>, epoch: number, changed: () => void): AsyncGenerator<Uint8Array, void> {
  const ready: Uint8Array[] = [];
  let size = 0;
  const reader = createTarReader({
    entry(entry: TarEntry) {
      const late = entry.mtimeSec > epoch || (entry.mtimeSec === epoch && entry.mtimeNsec > 0);
      if (late) changed();
      const { sparse: _, ...plain } = entry;
      ready.push(tarHeader(late ? { ...plain, mtimeSec: epoch, mtimeNsec: 0 } : plain));
      size = entry.type === "file" ? entry.size : 0;
    },
    data: (buffer, offset, length) => void ready.push(Buffer.from(buffer.subarray(offset, offset + length))),
    hole(length) {
      for (let left = length; left > 0; left -= 1 << 16) ready.push(new Uint8Array(Math.min(left, 1 << 16)));
    },
    finish() {
      if (size > 0) ready.push(tarPadding(size));
    },
  });
  for await (const piece of tar) {
    reader.push(piece, 0, piece.length);
    yield* ready.splice(0);
  }
  reader.end();
  yield* ready.splice(0);
  yield TAR_END;
}

/** The layer with no file later than `epoch` (seconds since 1970). */
async function rewritten(layer: Layer, epoch: number, host: BuilderHost, lease: Lease, signal: AbortSignal): Promise<Layer> {
  const { content } = host.manager;
  const own = layer.descriptor.digest;
  const label = `containerd.io/gc.ref.content.epoch.${epoch}`;
  const made = (digest: string, size: number): Layer => ({ descriptor: { mediaType: TAR, digest, size }, diffId: digest });
  const { info } = await content.info({ digest: own });
  const known = info?.labels[label];
  if (known === own) return layer;
  if (known && (await hasBlob(host.manager, known))) return made(known, Number((await content.info({ digest: known })).info!.size));
  let late = false;
  const source = clamped(plainLayer(streamBlob(host.manager, own), layer.descriptor.mediaType), epoch, () => {
    late = true;
  });
  const { digest, size } = await writeBlob(host.manager, source, { mediaType: TAR, labels: {}, lease, signal });
  await content.update({ info: { digest: own, labels: { [label]: late ? digest : own } }, updateMask: { paths: [`labels.${label}`] } });
  return late ? made(digest, size) : layer;
}

/** The layers of a result as they are exported: those that steps made have no file later than `epoch`; an image's stay as they are. */
export async function layersUntil(
  layers: readonly Layer[],
  epoch: number,
  solved: Iterable<Pick<Solved, "image">>,
  { host, lease, signal }: { host: BuilderHost; lease: Lease; signal: AbortSignal },
): Promise<Layer[]> {
  const given = new Set<string>();
  for (const { image } of solved) for (const { diffId } of image?.layers ?? []) given.add(diffId);
  const found: Layer[] = [];
  for (const layer of layers) found.push(given.has(layer.diffId) ? layer : await rewritten(layer, epoch, host, lease, signal));
  return found;
}
