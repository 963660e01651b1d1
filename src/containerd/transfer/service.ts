// The transfer service: moves an image from a source to a destination, of which each is a registry, the image store, or an archive on a stream.
import { randomBytes } from "node:crypto";
import { fromBinary } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import { Transfer } from "../../gen/containerd/services/transfer/v1_pb.ts";
import {
  ImageExportStreamSchema,
  ImageImportStreamSchema,
  ImageStoreSchema,
  OCIRegistrySchema,
  ProgressSchema,
} from "../../gen/containerd/types/transfer_pb.ts";
import { unimplemented } from "../../lib/errors.ts";
import type { ContentStore } from "../content/store.ts";
import { microseconds } from "../database.ts";
import type { ImageStore } from "../images.ts";
import { type Call, namespaceOf, required, type Service, service } from "../service.ts";
import type { Snapshotter } from "../snapshots/snapshotter.ts";
import { type State, touchNamespace } from "../state.ts";
import { descriptorOf, type Place, setImage } from "./image-content.ts";
import { isType, type Streams } from "./streams.ts";

export interface TransferParts {
  content: ContentStore;
  images: ImageStore;
  snapshotters: Map<string, Snapshotter>;
  streams: Streams;
}

export function transferService(state: State, parts: TransferParts): Service {
  const { streams } = parts;
  return service(Transfer, {
    async transfer(request, call) {
      const namespace = namespaceOf(call);
      const source = required(request.source, "source");
      const destination = required(request.destination, "destination");
      const stream = request.options?.progressStream ? streams.get(namespace, request.options.progressStream) : undefined;
      const progress: Place["progress"] = (event, step = {}) => {
        const { name = "", parents = [], progress = 0, total = 0, descriptor } = step;
        const desc = descriptor ? { mediaType: descriptor.mediaType, digest: descriptor.digest, size: BigInt(descriptor.size) } : undefined;
        stream?.send(ProgressSchema, {
          event,
          name,
          parents,
          progress: BigInt(progress),
          total: BigInt(total),
          ...(desc ? { desc } : {}),
        });
      };
      try {
        await leased(state, call, (lease) => run(source, destination, { ...parts, namespace, lease, signal: call.signal, progress }));
      } finally {
        stream?.close();
      }
      return {};
    },
  });

  async function run(source: Any, destination: Any, place: Place): Promise<void> {
    const from = (schema: Parameters<typeof isType>[1]) => isType(source, schema);
    const to = (schema: Parameters<typeof isType>[1]) => isType(destination, schema);
    if (from(OCIRegistrySchema) && to(ImageStoreSchema)) {
      const { pull } = await import("./registry.ts");
      return pull(fromBinary(OCIRegistrySchema, source.value), fromBinary(ImageStoreSchema, destination.value), place, streams);
    }
    if (from(ImageStoreSchema) && to(OCIRegistrySchema)) {
      const { push } = await import("./registry.ts");
      return push(fromBinary(ImageStoreSchema, source.value), fromBinary(OCIRegistrySchema, destination.value), place, streams);
    }
    if (from(ImageImportStreamSchema) && to(ImageStoreSchema)) {
      const { importArchive } = await import("./import.ts");
      const { stream, mediaType, forceCompress } = fromBinary(ImageImportStreamSchema, source.value);
      if (mediaType !== "" && !/tar/.test(mediaType)) throw unimplemented(`import of ${mediaType}`);
      if (forceCompress) throw unimplemented("compressing the layers of an imported archive");
      return importArchive(streams.get(place.namespace, stream), fromBinary(ImageStoreSchema, destination.value), place, state.root);
    }
    if (from(ImageStoreSchema) && to(ImageExportStreamSchema)) {
      const { exportArchive } = await import("./export.ts");
      const options = fromBinary(ImageExportStreamSchema, destination.value);
      return exportArchive(fromBinary(ImageStoreSchema, source.value), options, streams.get(place.namespace, options.stream), place);
    }
    if (from(ImageStoreSchema) && to(ImageStoreSchema)) {
      const target = descriptorOf(place.images.get(place.namespace, fromBinary(ImageStoreSchema, source.value).name));
      const { name, labels } = fromBinary(ImageStoreSchema, destination.value);
      setImage(place, name, target, labels);
      return;
    }
    throw unimplemented(`transfer from ${source.typeUrl} to ${destination.typeUrl}`);
  }
}

/** Runs with the caller's lease, or one of its own, so that nothing half-made is collected. */
async function leased(state: State, call: Call, work: (lease: string) => Promise<void>): Promise<void> {
  if (call.lease !== "") return work(call.lease);
  const { db } = state;
  const namespace = namespaceOf(call);
  const id = `transfer-${Date.now()}-${randomBytes(4).toString("hex")}`;
  const labels = { "containerd.io/gc.expire": new Date(Date.now() + 24 * 3600_000).toISOString() };
  db.transaction(() => {
    touchNamespace(db, namespace);
    db.run(
      "insert into leases (namespace, id, labels, created) values (?, ?, ?, ?)",
      namespace,
      id,
      JSON.stringify(labels),
      microseconds(),
    );
  });
  try {
    await work(id);
  } finally {
    db.transaction(() => {
      db.run("delete from lease_resources where namespace = ? and lease = ?", namespace, id);
      db.run("delete from leases where namespace = ? and id = ?", namespace, id);
    });
    void state.collect();
  }
}
