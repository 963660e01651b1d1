// Why a build failed, for people: the instruction's lines with a caret, what its command said last, and the sentence. The error carries these as details.
import { fromBinary, fromJson, type JsonValue } from "@bufbuild/protobuf";
import { SourceSchema, VertexSchema } from "../../gen/errdefs_pb.ts";
import { excerpt } from "../../lib/excerpt.ts";
import { isRpcFailure, type RpcFailure } from "../../lib/grpc/status.ts";
import type { Step, Track } from "./track.ts";

export interface Explained {
  message: string;
  /** The step that failed. */
  step: Step | undefined;
  /** "" where no lines are to blame. */
  excerpt: string;
  /** Exit status of the command. */
  status: number | undefined;
}

const LAST_LINES = 15;

/** A detail as a message: our engine sends it in binary, Go's as JSON in the form of protobuf or of Go. */
function detailOf(error: RpcFailure, name: string): Uint8Array | undefined {
  for (const detail of error.details)
    if ("type" in detail && "value" in detail && detail.type.replace(/\+json$/, "").endsWith(name)) return detail.value;
  return undefined;
}

function decode<T>(bytes: Uint8Array | undefined, binary: (bytes: Uint8Array) => T, json: (value: JsonValue) => T): T | undefined {
  if (!bytes) return undefined;
  try {
    if (bytes[0] === 0x7b) return json(JSON.parse(Buffer.from(bytes).toString()) as JsonValue);
    return binary(bytes);
  } catch {
    return undefined;
  }
}

export function explain(error: unknown, track: Track): Explained {
  const failed = [...track.steps.values()].find((step) => step.error !== "" && !/context canceled/.test(step.error));
  if (!isRpcFailure(error)) {
    return { message: error instanceof Error ? error.message : String(error), step: failed, excerpt: "", status: undefined };
  }
  const source = decode(
    detailOf(error, "errdefs.Source"),
    (bytes) => fromBinary(SourceSchema, bytes),
    (json) => fromJson(SourceSchema, json, { ignoreUnknownFields: true }),
  );
  const vertex = decode(
    detailOf(error, "errdefs.Vertex"),
    (bytes) => fromBinary(VertexSchema, bytes),
    (json) => fromJson(VertexSchema, json, { ignoreUnknownFields: true }),
  );
  const step = (vertex && track.steps.get(vertex.digest)) ?? failed;
  const start = source?.ranges[0]?.start?.line;
  const end = source?.ranges.at(-1)?.end?.line;
  const lines =
    source?.info && start
      ? excerpt(Buffer.from(source.info.data).toString(), source.info.filename, { start, end: Math.max(start, end ?? start) })
      : "";
  const status = /(?:exit code|non-zero code): (\d+)/.exec(error.rawMessage)?.[1];
  return { message: error.rawMessage, step, excerpt: lines, status: status === undefined ? undefined : Number(status) };
}

export function failureText({ step, excerpt: lines }: Explained): string {
  let text = "";
  if (step && step.number > 0 && (step.lines.length > 0 || step.rest)) {
    const last = [...step.lines.map((line) => line.text), ...(step.rest ? [step.rest] : [])].slice(-LAST_LINES);
    text += `------\n > ${step.name}:\n${last.map((line) => `${line}\n`).join("")}------\n`;
  } else if (step && step.number > 0) text += `------\n > ${step.name}:\n------\n`;
  return lines ? `${text}${lines}\n` : text;
}
