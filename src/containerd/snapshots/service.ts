// The snapshots service: requests to snapshotters by name, and their events.
import type { MessageInitShape } from "@bufbuild/protobuf";
import { SnapshotCommitSchema, SnapshotPrepareSchema, SnapshotRemoveSchema } from "../../gen/containerd/events_pb.ts";
import { type InfoSchema, Kind as KindEnum, Snapshots } from "../../gen/containerd/services/snapshots/v1_pb.ts";
import { invalidArgument } from "../../lib/errors.ts";
import { timestamp } from "../database.ts";
import { labelField, parseFilters } from "../filters.ts";
import { namespaceOf, required, type Service, service } from "../service.ts";
import type { State } from "../state.ts";
import type { Info, Snapshotter } from "./snapshotter.ts";

const kinds = { view: KindEnum.VIEW, active: KindEnum.ACTIVE, committed: KindEnum.COMMITTED };

const message = (info: Info): MessageInitShape<typeof InfoSchema> => ({
  name: info.name,
  parent: info.parent,
  kind: kinds[info.kind],
  createdAt: timestamp(info.created),
  updatedAt: timestamp(info.updated),
  labels: info.labels,
});

export function snapshotsService(state: State, snapshotters: Map<string, Snapshotter>): Service {
  const of = (name: string): Snapshotter => {
    if (name === "") throw invalidArgument("snapshotter argument missing");
    const found = snapshotters.get(name);
    if (!found) throw invalidArgument(`snapshotter not loaded: ${name}`);
    return found;
  };
  const prepared = (namespace: string, snapshotter: string, key: string, parent: string) =>
    state.events.publish(namespace, "/snapshot/prepare", SnapshotPrepareSchema, { key, parent, snapshotter });

  return service(Snapshots, {
    prepare({ snapshotter, key, parent, labels }, call) {
      const namespace = namespaceOf(call);
      const mounts = of(snapshotter).prepare(namespace, key, parent, labels, call.lease);
      prepared(namespace, snapshotter, key, parent);
      return { mounts };
    },
    view({ snapshotter, key, parent, labels }, call) {
      const namespace = namespaceOf(call);
      const mounts = of(snapshotter).view(namespace, key, parent, labels, call.lease);
      prepared(namespace, snapshotter, key, parent);
      return { mounts };
    },
    mounts: ({ snapshotter, key }, call) => ({ mounts: of(snapshotter).mounts(namespaceOf(call), key) }),
    commit({ snapshotter, name, key, labels, parent }, call) {
      const namespace = namespaceOf(call);
      of(snapshotter).commit(namespace, name, key, labels, call.lease, parent);
      state.events.publish(namespace, "/snapshot/commit", SnapshotCommitSchema, { key, name, snapshotter });
      return {};
    },
    remove({ snapshotter, key }, call) {
      const namespace = namespaceOf(call);
      of(snapshotter).remove(namespace, key);
      state.events.publish(namespace, "/snapshot/remove", SnapshotRemoveSchema, { key, snapshotter });
      return {};
    },
    stat: ({ snapshotter, key }, call) => ({ info: message(of(snapshotter).stat(namespaceOf(call), key)) }),
    update({ snapshotter, info, updateMask }, call) {
      return { info: message(of(snapshotter).update(namespaceOf(call), required(info, "info"), updateMask?.paths ?? [])) };
    },
    async *list({ snapshotter, filters }, call) {
      const filter = parseFilters(filters);
      const infos = of(snapshotter)
        .list(namespaceOf(call))
        .filter((info) =>
          filter(([head, ...rest]) => {
            if (head === "kind") return info.kind;
            if (head === "name") return info.name;
            if (head === "parent") return info.parent === "" ? undefined : info.parent;
            return head === "labels" ? labelField(info.labels, rest) : undefined;
          }),
        );
      for (let i = 0; i < infos.length; i += 100) yield { info: infos.slice(i, i + 100).map(message) };
    },
    async usage({ snapshotter, key }, call) {
      const { size, inodes } = await of(snapshotter).usage(namespaceOf(call), key);
      return { size: BigInt(size), inodes: BigInt(inodes) };
    },
    async cleanup({ snapshotter }) {
      await of(snapshotter).cleanup();
      return {};
    },
  });
}
