// What a failure is in BuildKit's gRPC: a code, a sentence, and as details the vertex that failed and the lines of the Dockerfile that asked for it, which clients
// print. Most failures are Unknown there, because clients put the name of any other code before the sentence.
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { SourceSchema, VertexSchema } from "../../gen/errdefs_pb.ts";
import { type Status, StatusSchema } from "../../gen/google/rpc/status_pb.ts";
import type { Range, Source, SourceInfo } from "../../gen/pb_pb.ts";
import { type ErrorKind, Failure, messageOf } from "../../lib/errors.ts";

const CODES: Partial<Record<ErrorKind, Code>> = {
  Unimplemented: Code.Unimplemented,
  Cancelled: Code.Canceled,
  DeadlineExceeded: Code.DeadlineExceeded,
  AlreadyExists: Code.AlreadyExists,
  PermissionDenied: Code.PermissionDenied,
  ResourceExhausted: Code.ResourceExhausted,
  Unavailable: Code.Unavailable,
};

/** What the builder puts on an error that is about a vertex, or about lines. */
interface Located {
  vertex?: unknown;
  range?: { start: number; end: number } | Range | Range[];
  source?: SourceInfo;
}

function rangesOf(range: NonNullable<Located["range"]>): MessageInitShape<typeof SourceSchema>["ranges"] {
  if (Array.isArray(range)) return range;
  if (typeof range.start === "number")
    return [{ start: { line: range.start, character: 0 }, end: { line: range.end as number, character: 0 } }];
  return [range as Range];
}

/** An error that a client made (a gateway's), handed on as it is. */
export class ClientFailure extends Error {
  readonly status: Status;
  constructor(status: Status) {
    super(status.message);
    this.status = status;
  }
}

/** `sources`: what the graph's definitions say of where vertices come from. */
export function toConnectError(error: unknown, sources: readonly Source[] = []): ConnectError {
  if (error instanceof ConnectError) return error;
  if (error instanceof ClientFailure) {
    const details = error.status.details.map(({ typeUrl, value }) => ({ type: typeUrl.slice(typeUrl.lastIndexOf("/") + 1), value }));
    const failure = new ConnectError(error.message, (error.status.code || Code.Unknown) as Code);
    failure.details = details.filter(({ type }) => !type.includes("+"));
    return failure;
  }
  const aborted = error instanceof DOMException && error.name === "AbortError";
  const code = aborted ? Code.Canceled : error instanceof Failure ? (CODES[error.kind] ?? Code.Unknown) : Code.Unknown;
  const result = new ConnectError(aborted ? "context canceled" : messageOf(error), code);
  if (!(error instanceof Error)) return result;
  const { vertex, range, source } = error as Located;
  const detail = (type: string, value: Uint8Array) => result.details.push({ type, value });
  if (typeof vertex === "string") {
    detail("errdefs.Vertex", toBinary(VertexSchema, create(VertexSchema, { digest: vertex })));
    for (const each of source && range ? [] : sources) {
      const locations = each.locations[vertex]?.locations ?? [];
      for (const { sourceIndex, ranges } of locations) {
        const info = each.infos[sourceIndex];
        if (!info || ranges.length === 0) continue;
        detail(
          "errdefs.Source",
          toBinary(SourceSchema, create(SourceSchema, { info: { ...info, definition: undefined } as never, ranges })),
        );
      }
      if (locations.length > 0) break;
    }
  }
  if (source && range)
    detail("errdefs.Source", toBinary(SourceSchema, create(SourceSchema, { info: source, ranges: rangesOf(range) ?? [] })));
  return result;
}

/** As a message: for history, and for what a gateway's process is told. */
export function toStatus(error: unknown, sources: readonly Source[] = []): Status {
  const { code, rawMessage, details } = toConnectError(error, sources);
  return create(StatusSchema, {
    code,
    message: rawMessage,
    details: details.flatMap((each) => ("type" in each ? [{ typeUrl: `type.googleapis.com/${each.type}`, value: each.value }] : [])),
  });
}
