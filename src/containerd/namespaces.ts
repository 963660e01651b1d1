// Namespaces: every other object lives in one; they share blobs, and nothing else.
import { NamespaceCreateSchema, NamespaceDeleteSchema, NamespaceUpdateSchema } from "../gen/containerd/events_pb.ts";
import { Namespaces } from "../gen/containerd/services/namespaces/v1_pb.ts";
import { alreadyExists, failedPrecondition, invalidArgument, notFound } from "../lib/errors.ts";
import { parseLabels } from "./database.ts";
import { checkIdentifier, checkLabels } from "./identifiers.ts";
import { required, type Service, service } from "./service.ts";
import { type State, touchNamespace } from "./state.ts";

export function namespacesService(state: State): Service {
  const { db, events } = state;
  // One that is not there yet has no labels: it will be there with the first thing made in it. dockerd asks for its own before it made anything.
  const load = (name: string) => {
    const row = db.get<{ labels: string }>("select labels from namespaces where name = ?", name);
    return { name, labels: row ? parseLabels(row.labels) : {} };
  };
  return service(Namespaces, {
    get: ({ name }) => ({ namespace: load(name) }),
    list: () => ({
      namespaces: db
        .all<{ name: string; labels: string }>("select name, labels from namespaces order by name")
        .map(({ name, labels }) => ({ name, labels: parseLabels(labels) })),
    }),
    create(request) {
      const { name, labels } = required(request.namespace, "namespace");
      checkIdentifier(name, "namespace");
      checkLabels(labels);
      const { changes } = db.run("insert or ignore into namespaces (name, labels) values (?, ?)", name, JSON.stringify(labels));
      if (changes === 0) throw alreadyExists(`namespace "${name}"`);
      events.publish(name, "/namespaces/create", NamespaceCreateSchema, { name, labels });
      return { namespace: { name, labels } };
    },
    update(request) {
      const { name, labels } = required(request.namespace, "namespace");
      checkLabels(labels);
      const namespace = db.transaction(() => {
        checkIdentifier(name, "namespace");
        touchNamespace(db, name);
        const current = load(name);
        const paths = request.updateMask?.paths ?? [];
        if (paths.length === 0) current.labels = labels;
        for (const path of paths) {
          if (path === "labels") current.labels = labels;
          else if (path.startsWith("labels.")) setLabel(current.labels, path.slice(7), labels);
          else throw invalidArgument(`cannot update "${path}" field`);
        }
        db.run("update namespaces set labels = ? where name = ?", JSON.stringify(current.labels), name);
        return current;
      });
      events.publish(name, "/namespaces/update", NamespaceUpdateSchema, namespace);
      return { namespace };
    },
    delete({ name }) {
      db.transaction(() => {
        if (!db.get("select 1 from namespaces where name = ?", name)) throw notFound(`namespace "${name}"`);
        const has = (table: string) => db.get(`select 1 from ${table} where namespace = ? limit 1`, name) !== undefined;
        const left: string[] = [];
        if (has("images")) left.push("images");
        if (has("content")) left.push("blobs");
        if (has("containers")) left.push("containers");
        if (has("snapshots")) left.push('snapshots on "overlayfs" snapshotter');
        if (has("shims")) left.push("tasks");
        if (left.length > 0) throw failedPrecondition(`namespace "${name}" must be empty, but it still has ${left.join(", ")}`);
        for (const table of ["leases", "lease_resources", "ingests"]) db.run(`delete from ${table} where namespace = ?`, name);
        db.run("delete from namespaces where name = ?", name);
      });
      events.publish(name, "/namespaces/delete", NamespaceDeleteSchema, { name });
      return {};
    },
  });
}

/** Sets or, where the new value is empty or not there, removes one label. */
export function setLabel(labels: Record<string, string>, key: string, from: Record<string, string>): void {
  const value = from[key];
  if (value === undefined || value === "") delete labels[key];
  else labels[key] = value;
}
