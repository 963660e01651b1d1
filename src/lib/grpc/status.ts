// How a gRPC call ends: a code, a sentence, and details (doc/PROTOCOL-HTTP2.md of gRPC), as an error and as header fields.
import type { Fields } from "../http2/index.ts";

/** The codes that we speak of. */
export const CODE = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
} as const;
const LAST_CODE = 16;

export interface Detail {
  /** Full name of the message. */
  type: string;
  value: Uint8Array;
}

/** Connect's errors have the same fields. */
export interface RpcFailure extends Error {
  readonly code: number;
  readonly rawMessage: string;
  readonly details: readonly (Detail | object)[];
}

export class GrpcError extends Error implements RpcFailure {
  readonly code: number;
  readonly rawMessage: string;
  readonly details: readonly Detail[];
  constructor(message: string, code: number, details: readonly Detail[] = []) {
    super(message);
    this.name = "GrpcError";
    this.code = code;
    this.rawMessage = message;
    this.details = details;
  }
}

/** What a call failed with; not what went wrong on our side. */
export const isRpcFailure = (error: unknown): error is RpcFailure => error instanceof Error && "rawMessage" in error && "details" in error;

const fieldOf = (fields: Fields, wanted: string): string | undefined => fields.find(([name]) => name === wanted)?.[1];

/** google.rpc.Status: code = 1, message = 2, details = 3 (google.protobuf.Any: type_url = 1, value = 2). */
function detailsOf(text: string): Detail[] {
  try {
    return readFields(Buffer.from(text, "base64"))
      .filter(([number]) => number === 3)
      .map(([, any]) => {
        const parts = new Map(readFields(any as Uint8Array));
        const url = Buffer.from((parts.get(1) as Uint8Array | undefined) ?? []).toString();
        return { type: url.slice(url.lastIndexOf("/") + 1), value: (parts.get(2) as Uint8Array | undefined) ?? new Uint8Array() };
      });
  } catch {
    return [];
  }
}

/** Fields of a message whose fields are numbers and bytes. */
function readFields(bytes: Uint8Array): [number, Uint8Array | number][] {
  const found: [number, Uint8Array | number][] = [];
  let pos = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[pos++];
      if (byte === undefined || shift > 63) throw new Error("malformed message");
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  };
  while (pos < bytes.length) {
    const tag = varint();
    if (tag % 8 === 0) found.push([tag >> 3, varint()]);
    else if (tag % 8 === 2) {
      const length = varint();
      if (pos + length > bytes.length) throw new Error("malformed message");
      found.push([tag >> 3, bytes.subarray(pos, pos + length)]);
      pos += length;
    } else throw new Error("malformed message");
  }
  return found;
}

/** How a call ended, by its last fields: undefined where they don't say, "ok", or the error. */
export function outcomeOf(fields: Fields): "ok" | GrpcError | undefined {
  const status = fieldOf(fields, "grpc-status");
  if (status === undefined) return undefined;
  const code = Number(status);
  if (code === CODE.OK) return "ok";
  const text = fieldOf(fields, "grpc-message") ?? "";
  let message = text;
  try {
    message = decodeURIComponent(text);
  } catch {
    // a message that is not escaped
  }
  const details = fieldOf(fields, "grpc-status-details-bin");
  return new GrpcError(message, code >= 0 && code <= LAST_CODE ? code : CODE.UNKNOWN, details === undefined ? [] : detailsOf(details));
}

/** A status message goes into `details`, as google.rpc.Status. */
export function trailersOf(code: number, message: string, details?: Uint8Array): Fields {
  // Only what is no printable ASCII character, and the percent sign, is escaped.
  const escaped = [...Buffer.from(message)]
    .map((byte) =>
      byte < 0x20 || byte > 0x7e || byte === 0x25 ? `%${byte.toString(16).toUpperCase().padStart(2, "0")}` : String.fromCharCode(byte),
    )
    .join("");
  return [
    ["grpc-status", String(code)],
    ...(message === "" ? [] : [["grpc-message", escaped] as const]),
    ...(details ? [["grpc-status-details-bin", Buffer.from(details).toString("base64").replace(/=+$/, "")] as const] : []),
  ];
}
