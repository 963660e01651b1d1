// The messages of BuildKit's protocol that each build needs (api/moby, api/fsutil), by tables: see src/lib/protobuf.ts for why.
import { list, map, message, one, type Shape } from "../../lib/protobuf.ts";

const Timestamp = message({ seconds: one(1, "int64"), nanos: one(2, "int32") });
const Position = message({ line: one(1, "int32"), character: one(2, "int32") });
const Range = message({ start: one(1, Position), end: one(2, Position) });
const SourceInfo = message({ filename: one(1, "string"), data: one(2, "bytes"), language: one(4, "string") });
const ProgressGroup = message({ id: one(1, "string"), name: one(2, "string"), weak: one(3, "bool") });

const Exporter = message({ Type: one(1, "string"), Attrs: map(2, "string") });
const CacheOptionsEntry = message({ Type: one(1, "string"), Attrs: map(2, "string") });
const CacheOptions = message({ Exports: list(4, CacheOptionsEntry), Imports: list(5, CacheOptionsEntry) });
export const SolveRequest = message({
  Ref: one(1, "string"),
  ExporterDeprecated: one(3, "string"),
  ExporterAttrsDeprecated: map(4, "string"),
  Session: one(5, "string"),
  Frontend: one(6, "string"),
  FrontendAttrs: map(7, "string"),
  Cache: one(8, CacheOptions),
  Entitlements: list(9, "string"),
  Exporters: list(13, Exporter),
});
export const SolveResponse = message({ ExporterResponse: map(1, "string") });

const Vertex = message({
  digest: one(1, "string"),
  inputs: list(2, "string"),
  name: one(3, "string"),
  cached: one(4, "bool"),
  started: one(5, Timestamp),
  completed: one(6, Timestamp),
  error: one(7, "string"),
  progressGroup: one(8, ProgressGroup),
});
const VertexStatus = message({
  ID: one(1, "string"),
  vertex: one(2, "string"),
  name: one(3, "string"),
  current: one(4, "int64"),
  total: one(5, "int64"),
  timestamp: one(6, Timestamp),
  started: one(7, Timestamp),
  completed: one(8, Timestamp),
});
const VertexLog = message({ vertex: one(1, "string"), timestamp: one(2, Timestamp), stream: one(3, "int64"), msg: one(4, "bytes") });
const VertexWarning = message({
  vertex: one(1, "string"),
  level: one(2, "int64"),
  short: one(3, "bytes"),
  detail: list(4, "bytes"),
  url: one(5, "string"),
  info: one(6, SourceInfo),
  ranges: list(7, Range),
});
export const StatusRequest = message({ Ref: one(1, "string") });
export const StatusResponse = message({
  vertexes: list(1, Vertex),
  statuses: list(2, VertexStatus),
  logs: list(3, VertexLog),
  warnings: list(4, VertexWarning),
});

export const Stat = message({
  path: one(1, "string"),
  mode: one(2, "uint32"),
  uid: one(3, "uint32"),
  gid: one(4, "uint32"),
  size: one(5, "int64"),
  modTime: one(6, "int64"),
  linkname: one(7, "string"),
  devmajor: one(8, "int64"),
  devminor: one(9, "int64"),
  xattrs: map(10, "bytes"),
});
export const PACKET = { STAT: 0, REQ: 1, DATA: 2, FIN: 3, ERR: 4 } as const;
export const Packet = message({ type: one(1, "int32"), stat: one(2, Stat), ID: one(3, "uint32"), data: one(4, "bytes") });

export const BytesMessage = message({ data: one(1, "bytes") });
/** SERVING = 1. */
export const HealthCheckResponse = message({ status: one(1, "int32") });
export const CredentialsRequest = message({ Host: one(1, "string") });
export const CredentialsResponse = message({ Username: one(1, "string"), Secret: one(2, "string") });
export const GetSecretRequest = message({ ID: one(1, "string") });
export const GetSecretResponse = message({ data: one(1, "bytes") });
export const CheckAgentRequest = message({ ID: one(1, "string") });

export type Stat = Shape<typeof Stat>;
export type Packet = Shape<typeof Packet>;
export type SolveRequest = Partial<Shape<typeof SolveRequest>>;
export type StatusResponse = Shape<typeof StatusResponse>;
