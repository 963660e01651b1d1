// Images into an archive: an OCI layout in a tar, with docker's manifest.json beside it so that `docker load` of every version reads it.
import type { ImageExportStream, ImageStore } from "../../gen/containerd/types/transfer_pb.ts";
import { invalidArgument } from "../../lib/errors.ts";
import { type ArchiveImage, formatReference, hostPlatform, imageArchive, isForeign, parseTagged } from "../../oci/index.ts";
import { descriptorOf, hasBlob, type Place, platformsOf, readBlob, streamBlob } from "./image-content.ts";
import { type Stream, sendData } from "./streams.ts";

export async function exportArchive(store: ImageStore, options: ImageExportStream, stream: Stream, place: Place): Promise<void> {
  place.progress("Exporting");
  const names = [...(store.name === "" ? [] : [store.name]), ...store.extraReferences.map((reference) => reference.name)];
  if (names.length === 0) throw invalidArgument("no image to export");
  const images = names.map((name): ArchiveImage => {
    const reference = parseTagged(name);
    const annotations = { "io.containerd.image.name": name, "org.opencontainers.image.ref.name": reference.tag ?? "latest" };
    return {
      target: descriptorOf(place.images.get(place.namespace, name)),
      names: [{ reference, annotations, repoTag: formatReference(reference) }],
    };
  });
  const source = {
    has: (digest: string) => hasBlob(place, digest),
    read: (digest: string, limit: number) => readBlob(place, { mediaType: "", digest, size: 0 }, limit),
    open: (digest: string) => streamBlob(place, digest),
  };
  const { tar, index } = await imageArchive(source, images, {
    ...(options.allPlatforms ? {} : { platforms: options.platforms.length > 0 ? platformsOf(options.platforms) : [hostPlatform()] }),
    ...(options.skipNonDistributable ? { skip: isForeign } : {}),
    layoutOnly: options.skipCompatibilityManifest,
    signal: place.signal,
  });
  await sendData(stream, tar);
  place.progress("Completed export", { name: index });
}
