// Containers: what is to run, as metadata. What runs is a task.

import { clone, create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Any, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { ContainerCreateSchema, ContainerDeleteSchema, ContainerUpdateSchema } from "../gen/containerd/events_pb.ts";
import { type Container, ContainerSchema, Containers } from "../gen/containerd/services/containers/v1_pb.ts";
import { alreadyExists, invalidArgument, notFound } from "../lib/errors.ts";
import { type Database, microseconds, timestamp } from "./database.ts";
import { type Field, labelField, parseFilters } from "./filters.ts";
import { checkIdentifier, checkLabels } from "./identifiers.ts";
import { setLabel } from "./namespaces.ts";
import { namespaceOf, required, type Service, service } from "./service.ts";
import { type State, touchNamespace } from "./state.ts";

interface Row {
  message: Uint8Array;
}

/** NotFound as containerd says it. */
export function loadContainer(db: Database, namespace: string, id: string): Container {
  const row = db.get<Row>("select message from containers where namespace = ? and id = ?", namespace, id);
  if (!row) throw notFound(`container "${id}" in namespace "${namespace}"`);
  return fromBinary(ContainerSchema, row.message);
}

function field(container: Container): Field {
  return ([head, ...rest]) => {
    switch (head) {
      case "id":
        return container.id;
      case "image":
        return container.image === "" ? undefined : container.image;
      case "runtime":
        return rest[0] === "name" ? container.runtime?.name : undefined;
      case "labels":
        return labelField(container.labels, rest);
      default:
        return undefined;
    }
  };
}

function check(container: Container): void {
  checkIdentifier(container.id, "container.ID");
  checkLabels(container.labels);
  if (!container.runtime?.name) throw invalidArgument("container.Runtime.Name must be set");
  if (!container.spec) throw invalidArgument("container.Spec must be set");
  if (container.snapshotKey !== "" && container.snapshotter === "") {
    throw invalidArgument("container.Snapshotter must be set if container.SnapshotKey is set");
  }
}

const now = () => create(TimestampSchema, timestamp(microseconds()));

export function containersService(state: State): Service {
  const { db, events } = state;

  const list = (namespace: string, filters: string[]): Container[] => {
    const filter = parseFilters(filters);
    const rows = db.all<Row>("select message from containers where namespace = ? order by id", namespace);
    return rows.map((row) => fromBinary(ContainerSchema, row.message)).filter((container) => filter(field(container)));
  };

  return service(Containers, {
    get: ({ id }, call) => ({ container: loadContainer(db, namespaceOf(call), id) }),
    list: ({ filters }, call) => ({ containers: list(namespaceOf(call), filters) }),
    async *listStream({ filters }, call) {
      for (const container of list(namespaceOf(call), filters)) yield { container };
    },
    create(request, call) {
      const namespace = namespaceOf(call);
      const container = clone(ContainerSchema, required(request.container, "container"));
      check(container);
      container.createdAt = now();
      container.updatedAt = container.createdAt;
      db.transaction(() => {
        touchNamespace(db, namespace);
        const { changes } = db.run(
          "insert or ignore into containers (namespace, id, snapshotter, snapshot_key, message) values (?, ?, ?, ?, ?)",
          namespace,
          container.id,
          container.snapshotter,
          container.snapshotKey,
          toBinary(ContainerSchema, container),
        );
        if (changes === 0) throw alreadyExists(`container "${container.id}"`);
      });
      const runtime = { name: container.runtime!.name, ...(container.runtime!.options ? { options: container.runtime!.options } : {}) };
      events.publish(namespace, "/containers/create", ContainerCreateSchema, { id: container.id, image: container.image, runtime });
      return { container };
    },
    update(request, call) {
      const namespace = namespaceOf(call);
      const wanted = required(request.container, "container");
      if (wanted.id === "") throw invalidArgument("container id required for update");
      const container = db.transaction(() => {
        const current = loadContainer(db, namespace, wanted.id);
        apply(current, wanted, request.updateMask?.paths ?? []);
        check(current);
        current.updatedAt = now();
        db.run(
          "update containers set snapshotter = ?, snapshot_key = ?, message = ? where namespace = ? and id = ?",
          current.snapshotter,
          current.snapshotKey,
          toBinary(ContainerSchema, current),
          namespace,
          current.id,
        );
        return current;
      });
      const { id, image, labels, snapshotKey } = container;
      events.publish(namespace, "/containers/update", ContainerUpdateSchema, { id, image, labels, snapshotKey });
      return { container };
    },
    delete({ id }, call) {
      const namespace = namespaceOf(call);
      db.transaction(() => {
        const { changes } = db.run("delete from containers where namespace = ? and id = ?", namespace, id);
        if (changes === 0) throw notFound(`container "${id}" in namespace "${namespace}"`);
      });
      events.publish(namespace, "/containers/delete", ContainerDeleteSchema, { id });
      void state.collect();
      return {};
    },
  });
}

function apply(current: Container, wanted: Container, paths: string[]): void {
  let fields = paths;
  if (paths.length === 0) {
    if (wanted.snapshotter !== current.snapshotter) throw invalidArgument("container.Snapshotter field is immutable");
    if (wanted.runtime?.name !== current.runtime?.name) throw invalidArgument("container.Runtime.Name field is immutable");
    fields = ["labels", "spec", "extensions", "image", "snapshotkey"];
  }
  for (const path of fields) {
    const dot = path.indexOf(".");
    const key = path.slice(dot + 1);
    switch (dot < 0 ? path : path.slice(0, dot + 1)) {
      case "labels":
        current.labels = wanted.labels;
        break;
      case "labels.":
        setLabel(current.labels, key, wanted.labels);
        break;
      case "extensions":
        current.extensions = wanted.extensions;
        break;
      case "extensions.": {
        const value: Any | undefined = wanted.extensions[key];
        if (value) current.extensions[key] = value;
        else delete current.extensions[key];
        break;
      }
      case "spec":
        if (wanted.spec) current.spec = wanted.spec;
        else delete current.spec;
        break;
      case "image":
        current.image = wanted.image;
        break;
      case "snapshotkey":
      case "snapshot_key":
        current.snapshotKey = wanted.snapshotKey;
        break;
      default:
        throw invalidArgument(`cannot update "${path}" field on "${current.id}"`);
    }
  }
}
