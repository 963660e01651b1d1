// Leases: a lease keeps its resources from the garbage collector, for as long as somebody works with things that nothing refers to yet.
import { Leases } from "../gen/containerd/services/leases/v1_pb.ts";
import { alreadyExists, invalidArgument, notFound, unimplemented } from "../lib/errors.ts";
import { microseconds, parseLabels, timestamp } from "./database.ts";
import { labelField, parseFilters } from "./filters.ts";
import { checkLabels } from "./identifiers.ts";
import { namespaceOf, required, type Service, service } from "./service.ts";
import { type State, touchNamespace } from "./state.ts";

interface Row {
  id: string;
  labels: string;
  created: number;
}

const kinds = new Set(["content", "ingests", "images", "snapshots/overlayfs"]);

export function leasesService(state: State): Service {
  const { db } = state;
  const mustExist = (namespace: string, id: string): void => {
    if (!db.get("select 1 from leases where namespace = ? and id = ?", namespace, id)) throw notFound(`lease "${id}"`);
  };
  const checkType = (type: string): void => {
    if (type === "") throw invalidArgument("resource type is required");
    if (!kinds.has(type)) throw unimplemented(`resource type ${type} not supported yet`);
  };
  return service(Leases, {
    create(request, call) {
      const namespace = namespaceOf(call);
      const { id, labels } = request;
      if (id === "") throw invalidArgument("lease id must be provided");
      checkLabels(labels);
      const created = microseconds();
      db.transaction(() => {
        touchNamespace(db, namespace);
        const { changes } = db.run(
          "insert or ignore into leases (namespace, id, labels, created) values (?, ?, ?, ?)",
          namespace,
          id,
          JSON.stringify(labels),
          created,
        );
        if (changes === 0) throw alreadyExists(`lease "${id}"`);
      });
      return { lease: { id, createdAt: timestamp(created), labels } };
    },
    async delete({ id, sync }, call) {
      const namespace = namespaceOf(call);
      db.transaction(() => {
        mustExist(namespace, id);
        db.run("delete from lease_resources where namespace = ? and lease = ?", namespace, id);
        db.run("delete from leases where namespace = ? and id = ?", namespace, id);
      });
      if (sync) await state.collect(true);
      else void state.collect();
      return {};
    },
    list({ filters }, call) {
      const filter = parseFilters(filters);
      const leases = db
        .all<Row>("select id, labels, created from leases where namespace = ? order by id", namespaceOf(call))
        .map((row) => ({ id: row.id, createdAt: timestamp(row.created), labels: parseLabels(row.labels) }))
        .filter(({ id, labels }) =>
          filter(([head, ...rest]) => (head === "id" ? id : head === "labels" ? labelField(labels, rest) : undefined)),
        );
      return { leases };
    },
    addResource(request, call) {
      const namespace = namespaceOf(call);
      const { id, type } = required(request.resource, "resource");
      checkType(type);
      db.transaction(() => {
        mustExist(namespace, request.id);
        db.run(
          "insert or ignore into lease_resources (namespace, lease, type, resource) values (?, ?, ?, ?)",
          namespace,
          request.id,
          type,
          id,
        );
      });
      return {};
    },
    deleteResource(request, call) {
      const namespace = namespaceOf(call);
      const { id, type } = required(request.resource, "resource");
      checkType(type);
      mustExist(namespace, request.id);
      db.run(
        "delete from lease_resources where namespace = ? and lease = ? and type = ? and resource = ?",
        namespace,
        request.id,
        type,
        id,
      );
      void state.collect();
      return {};
    },
    listResources({ id }, call) {
      const namespace = namespaceOf(call);
      mustExist(namespace, id);
      const resources = db.all<{ id: string; type: string }>(
        "select resource as id, type from lease_resources where namespace = ? and lease = ? order by type, resource",
        namespace,
        id,
      );
      return { resources: resources.map((row) => ({ id: row.id, type: row.type })) };
    },
  });
}
