// What a failure is in BuildKit's gRPC: a code, a sentence, and as details the vertex that failed and the lines of the Dockerfile that asked for it, which clients
// print. Most failures are Unknown there, because clients put the name of any other code before the sentence.
import { create, type DescMessage, fromBinary, fromJson, type JsonValue, type Message, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { SourceSchema, VertexSchema } from "../../gen/errdefs_pb.ts";
import { type Status, StatusSchema } from "../../gen/google/rpc/status_pb.ts";
import { type Range, RangeSchema, type Source, type SourceInfo, SourceInfoSchema } from "../../gen/pb_pb.ts";
import { type ErrorKind, Failure, messageOf } from "../../lib/errors.ts";

const CODES: Partial<Record<ErrorKind, Code>> = {
  Unimplemented: Code.Unimplemented,
  Cancelled: Code.Canceled,
  AlreadyExists: Code.AlreadyExists,
  PermissionDenied: Code.PermissionDenied,
};

/** What the builder puts on an error that is about a vertex, or about lines. */
interface Located {
  vertex?: unknown;
  range?: { start: number; end: number } | Range | Range[];
  source?: SourceInfo;
}

function rangesOf(range: NonNullable<Located["range"]>): Range[] {
  if (Array.isArray(range)) return range;
  if (typeof range.start !== "number") return [range as Range];
  return [create(RangeSchema, { start: { line: range.start, character: 0 }, end: { line: range.end as number, character: 0 } })];
}

/** An error that a client made (a gateway's), handed on as it is. */
export class ClientFailure extends Error {
  readonly status: Status;
  constructor(status: Status) {
    super(status.message);
    this.status = status;
  }
}

/** The builder says of common mistakes what the classic builder did; BuildKit's clients know other sentences. */
export const sentenceOf = (text: string): string =>
  text
    .replace(
      /The command '(.*)' returned a non-zero code: (\d+)$/s,
      (_, command: string, code: string) => `process ${JSON.stringify(command)} did not complete successfully: exit code: ${code}`,
    )
    .replace(
      /^(?:COPY|ADD) failed: (?:file not found in build context or excluded by \.dockerignore: )?stat (.*): file does not exist$/,
      'failed to compute cache key: failed to calculate checksum: "/$1": not found',
    );

const KNOWN = { "errdefs.Source": SourceSchema, "errdefs.Vertex": VertexSchema } as const;

/** A detail that a Go client made: JSON of a message, in most cases. Others than those that clients print are left out. */
function detailOf(type: string, value: Uint8Array): { type: string; value: Uint8Array }[] {
  const json = type.endsWith("+json");
  const name = json ? type.slice(0, -"+json".length) : type;
  if (!(name in KNOWN)) return [];
  const schema: DescMessage = KNOWN[name as keyof typeof KNOWN];
  try {
    const message = json
      ? fromJson(schema, JSON.parse(Buffer.from(value).toString()) as JsonValue, { ignoreUnknownFields: true })
      : fromBinary(schema, value);
    if (schema === SourceSchema) {
      const { info, ranges } = message as Message & { info?: SourceInfo; ranges: Range[] };
      return info ? sourceDetail(info, ranges) : [];
    }
    return [{ type: name, value: toBinary(schema, message) }];
  } catch {
    return [];
  }
}

/** What an error may carry of a file's text, and of words: they travel in headers. */
const MAX_SOURCE = 16 << 10;
const MAX_MESSAGE = 8 << 10;
/** Lines around the guilty ones that clients show. */
const AROUND = 10;

/** A file's text as far as it is shown: lines that are far away are empty, so that numbers stay right. */
function shortened(info: SourceInfo, ranges: readonly Range[]): SourceInfo | undefined {
  if (info.data.length <= MAX_SOURCE)
    return create(SourceInfoSchema, { filename: info.filename, data: info.data, language: info.language });
  const near = (line: number) =>
    ranges.some(({ start, end }) => line >= (start?.line ?? 0) - AROUND && line <= Math.max(start?.line ?? 0, end?.line ?? 0) + AROUND);
  const last = Math.max(...ranges.map(({ start, end }) => Math.max(start?.line ?? 0, end?.line ?? 0))) + AROUND;
  const lines = Buffer.from(info.data).toString().split("\n").slice(0, last);
  const data = Buffer.from(lines.map((text, i) => (near(i + 1) ? text : "")).join("\n"));
  return data.length <= MAX_SOURCE ? create(SourceInfoSchema, { filename: info.filename, data, language: info.language }) : undefined;
}

function sourceDetail(info: SourceInfo, ranges: readonly Range[]): { type: string; value: Uint8Array }[] {
  const kept = ranges.length > 0 && shortened(info, ranges);
  if (!kept) return [];
  return [{ type: "errdefs.Source", value: toBinary(SourceSchema, create(SourceSchema, { info: kept, ranges: [...ranges] })) }];
}

/** `sources`: what the graph's definitions say of where vertices come from. */
export function toConnectError(error: unknown, sources: readonly Source[] = []): ConnectError {
  if (error instanceof ConnectError) return error;
  if (error instanceof ClientFailure) {
    const failure = new ConnectError(error.message, (error.status.code || Code.Unknown) as Code);
    failure.details = error.status.details.flatMap(({ typeUrl, value }) => detailOf(typeUrl.slice(typeUrl.lastIndexOf("/") + 1), value));
    return failure;
  }
  const aborted = error instanceof DOMException && error.name === "AbortError";
  const code = aborted ? Code.Canceled : error instanceof Failure ? (CODES[error.kind] ?? Code.Unknown) : Code.Unknown;
  const said = aborted ? "context canceled" : sentenceOf(messageOf(error));
  const { command } = (error ?? {}) as { command?: readonly string[] };
  const text = command ? `process ${JSON.stringify(command.join(" "))} did not complete successfully: ${said}` : said;
  const result = new ConnectError(text.length > MAX_MESSAGE ? `${text.slice(0, MAX_MESSAGE)}…` : text, code);
  if (!(error instanceof Error)) return result;
  const { vertex, range, source } = error as Located;
  if (typeof vertex === "string") {
    result.details.push({ type: "errdefs.Vertex", value: toBinary(VertexSchema, create(VertexSchema, { digest: vertex })) });
    for (const each of source && range ? [] : sources) {
      const locations = each.locations[vertex]?.locations ?? [];
      for (const { sourceIndex, ranges } of locations) {
        const info = each.infos[sourceIndex];
        if (info) result.details.push(...sourceDetail(info, ranges));
      }
      if (locations.length > 0) break;
    }
  }
  if (source && range) result.details.push(...sourceDetail(source, rangesOf(range)));
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
