// Images: a name for a descriptor. What the descriptor leads to lies in the content store.
import { clone, create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import {
  type Image,
  ImageCreateSchema,
  ImageDeleteSchema,
  ImageSchema,
  Images,
  ImageUpdateSchema,
} from "../gen/containerd/services/images/v1_pb.ts";
import { alreadyExists, invalidArgument, notFound } from "../lib/errors.ts";
import { type Database, microseconds, timestamp } from "./database.ts";
import { type Field, labelField, parseFilters } from "./filters.ts";
import { checkLabels } from "./identifiers.ts";
import { setLabel } from "./namespaces.ts";
import { namespaceOf, required, type Service, service } from "./service.ts";
import { addToLease, type State, touchNamespace } from "./state.ts";

interface Row {
  message: Uint8Array;
}

export function loadImage(db: Database, namespace: string, name: string): Image {
  const row = db.get<Row>("select message from images where namespace = ? and name = ?", namespace, name);
  if (!row) throw notFound(`image "${name}"`);
  return fromBinary(ImageSchema, row.message);
}

function field(image: Image): Field {
  return ([head, ...rest]) => {
    switch (head) {
      case "name":
        return image.name;
      case "target":
        if (rest[0] === "digest") return image.target?.digest;
        return rest[0] === "mediatype" ? image.target?.mediaType : undefined;
      case "labels":
        return labelField(image.labels, rest);
      case "annotations":
        return labelField(image.target?.annotations ?? {}, rest);
      default:
        return undefined;
    }
  };
}

function check(image: Image): void {
  if (image.name === "") throw invalidArgument("image name must not be empty");
  checkLabels(image.labels);
  const target = image.target;
  if (!target || target.digest === "") throw invalidArgument("Image.Target.Digest is invalid: empty");
  if (!/^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,}$/.test(target.digest)) {
    throw invalidArgument(`Image.Target.Digest "${target.digest}" is invalid: invalid checksum digest format`);
  }
  if (target.size <= 0n) throw invalidArgument("Image.Target.Size must be greater than zero");
  if (target.mediaType === "") throw invalidArgument("Image.Target.MediaType must be set");
}

/** SOURCE_DATE_EPOCH, where the caller wants reproducible times. */
const timeOf = (epoch: Timestamp | undefined) => epoch ?? create(TimestampSchema, timestamp(microseconds()));

export interface ImageStore {
  get(namespace: string, name: string): Image;
  /** AlreadyExists where the name is taken. */
  create(namespace: string, image: Image, lease: string, epoch?: Timestamp): Image;
  update(namespace: string, image: Image, paths: string[], epoch?: Timestamp): Image;
}

export function createImageStore(state: State): ImageStore {
  const { db, events } = state;
  return {
    get: (namespace, name) => loadImage(db, namespace, name),
    create(namespace, wanted, lease, epoch) {
      const image = clone(ImageSchema, wanted);
      check(image);
      image.createdAt = timeOf(epoch);
      image.updatedAt = image.createdAt;
      db.transaction(() => {
        touchNamespace(db, namespace);
        const { changes } = db.run(
          "insert or ignore into images (namespace, name, digest, message) values (?, ?, ?, ?)",
          namespace,
          image.name,
          image.target!.digest,
          toBinary(ImageSchema, image),
        );
        if (changes === 0) throw alreadyExists(`image "${image.name}"`);
        addToLease(db, namespace, lease, "images", image.name);
      });
      events.publish(namespace, "/images/create", ImageCreateSchema, { name: image.name, labels: image.labels });
      return image;
    },
    update(namespace, wanted, paths, epoch) {
      if (wanted.name === "") throw invalidArgument("image name is required for update");
      const image = db.transaction(() => {
        const current = loadImage(db, namespace, wanted.name);
        apply(current, wanted, paths);
        check(current);
        current.updatedAt = timeOf(epoch);
        db.run(
          "update images set digest = ?, message = ? where namespace = ? and name = ?",
          current.target!.digest,
          toBinary(ImageSchema, current),
          namespace,
          current.name,
        );
        return current;
      });
      events.publish(namespace, "/images/update", ImageUpdateSchema, { name: image.name, labels: image.labels });
      // what the name meant before may be garbage now
      void state.collect();
      return image;
    },
  };
}

export function imagesService(state: State, store: ImageStore): Service {
  const { db, events } = state;
  return service(Images, {
    get: ({ name }, call) => ({ image: store.get(namespaceOf(call), name) }),
    list({ filters }, call) {
      const filter = parseFilters(filters);
      const rows = db.all<Row>("select message from images where namespace = ? order by name", namespaceOf(call));
      return { images: rows.map((row) => fromBinary(ImageSchema, row.message)).filter((image) => filter(field(image))) };
    },
    create: (request, call) => ({
      image: store.create(namespaceOf(call), required(request.image, "image"), call.lease, request.sourceDateEpoch),
    }),
    update: (request, call) => ({
      image: store.update(namespaceOf(call), required(request.image, "image"), request.updateMask?.paths ?? [], request.sourceDateEpoch),
    }),
    async delete({ name, sync, target }, call) {
      const namespace = namespaceOf(call);
      db.transaction(() => {
        const image = loadImage(db, namespace, name);
        if (target && target.digest !== image.target?.digest) throw notFound(`image "${name}" has digest ${image.target?.digest}`);
        db.run("delete from images where namespace = ? and name = ?", namespace, name);
      });
      events.publish(namespace, "/images/delete", ImageDeleteSchema, { name });
      if (sync) await state.collect(true);
      else void state.collect();
      return {};
    },
  });
}

function apply(current: Image, wanted: Image, paths: string[]): void {
  for (const path of paths.length === 0 ? ["labels", "target"] : paths) {
    if (path === "labels") current.labels = wanted.labels;
    else if (path.startsWith("labels.")) setLabel(current.labels, path.slice(7), wanted.labels);
    else if (path === "target") {
      if (wanted.target) current.target = wanted.target;
      else delete current.target;
    } else if (path === "annotations" && current.target) current.target.annotations = wanted.target?.annotations ?? {};
    else if (path.startsWith("annotations.") && current.target) {
      setLabel(current.target.annotations, path.slice(12), wanted.target?.annotations ?? {});
    } else throw invalidArgument(`cannot update "${path}" field on image "${current.name}"`);
  }
}
