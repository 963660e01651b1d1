// What exports know of the build around them.
import type { Source } from "../../gen/pb_pb.ts";
import type { Graph } from "../graph/llb.ts";
import type { BuilderHost, Layer, Lease, Status } from "../host.ts";
import type { Ref } from "../session.ts";
import type { Cache } from "../solve/cache.ts";
import type { Solved } from "../solve/vertex.ts";
import type { Tree, Workspace } from "../solve/workspace.ts";

export interface ExportContext {
  host: BuilderHost;
  lease: Lease;
  signal: AbortSignal;
  graph: Graph;
  cache: Cache;
  workspace: Workspace;
  epoch: number | undefined;
  noCache: boolean;
  request: { frontend: string; attrs: Readonly<Record<string, string>> } | undefined;
  /** Of this build. */
  id: string;
  started: Date;
  treeOf(ref: Ref | undefined): Promise<Tree>;
  solved(): Promise<Map<string, Solved>>;
  source(): Source | undefined;
  status(status: Status): void;
  hasSnapshot(chainId: string): Promise<boolean>;
  /** Cache records to put into an image's config; undefined where there is nothing to say. */
  inlineCache(layers: readonly Layer[]): Promise<object | undefined>;
}
