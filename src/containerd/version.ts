// Version and introspection: who answers, and what it has. Clients choose by the plugins they find (a snapshotter, a differ, the runtime).
import { Introspection } from "../gen/containerd/services/introspection/v1_pb.ts";
import { Version } from "../gen/containerd/services/version/v1_pb.ts";
import { notFound, unimplemented } from "../lib/errors.ts";
import { parseFilters } from "./filters.ts";
import { type Service, service } from "./service.ts";

/** The containerd whose services these are, with ours behind the plus sign. */
export const VERSION = "2.1.0+jubako.0.1.0";
export const REVISION = "jubako";

const linux = [{ os: "linux", architecture: process.arch === "arm64" ? "arm64" : "amd64" }];

interface Plugin {
  type: string;
  id: string;
  requires?: string[];
  exports?: Record<string, string>;
  capabilities?: string[];
}

export function plugins(root: string): Plugin[] {
  const grpc = [
    "containers",
    "content",
    "diff",
    "events",
    "images",
    "introspection",
    "leases",
    "namespaces",
    "snapshots",
    "tasks",
    "version",
  ];
  return [
    { type: "io.containerd.content.v1", id: "content", exports: { root: `${root}/content` } },
    { type: "io.containerd.snapshotter.v1", id: "overlayfs", exports: { root: `${root}/snapshots` } },
    { type: "io.containerd.metadata.v1", id: "bolt", requires: ["io.containerd.content.v1", "io.containerd.snapshotter.v1"] },
    { type: "io.containerd.differ.v1", id: "walking", requires: ["io.containerd.metadata.v1"] },
    { type: "io.containerd.gc.v1", id: "scheduler", requires: ["io.containerd.metadata.v1"] },
    { type: "io.containerd.runtime.v2", id: "task", requires: ["io.containerd.metadata.v1"] },
    { type: "io.containerd.transfer.v1", id: "local", requires: ["io.containerd.metadata.v1"] },
    { type: "io.containerd.streaming.v1", id: "manager" },
    ...grpc.map((id) => ({ type: "io.containerd.grpc.v1", id })),
    { type: "io.containerd.grpc.v1", id: "streaming" },
    { type: "io.containerd.grpc.v1", id: "transfer" },
  ];
}

export function versionService(): Service {
  return service(Version, { version: () => ({ version: VERSION, revision: REVISION }) });
}

export function introspectionService(root: string, uuid: string, pidNamespace: bigint): Service {
  const all = plugins(root).map((plugin) => ({ requires: [], exports: {}, capabilities: [], platforms: linux, ...plugin }));
  return service(Introspection, {
    plugins({ filters }) {
      const filter = parseFilters(filters);
      const found = all.filter((plugin) =>
        filter(([head, ...rest]) => {
          if (head === "type") return plugin.type;
          if (head === "id") return plugin.id;
          if (head === "platforms") return "linux/amd64";
          if (head === "capabilities") return plugin.capabilities.includes(rest.join(".")) ? rest.join(".") : undefined;
          return undefined;
        }),
      );
      return { plugins: found };
    },
    server: () => ({ uuid, pid: BigInt(process.pid), pidns: pidNamespace, deprecations: [] }),
    pluginInfo({ type, id, options }) {
      const plugin = all.find((p) => p.type === type && p.id === id);
      if (!plugin) throw notFound(`plugin ${type}.${id}`);
      if (options) throw unimplemented(`options for the information of plugin ${type}.${id}`);
      return { plugin };
    },
  });
}
