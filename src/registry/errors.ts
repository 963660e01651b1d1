// Answers that refuse (distribution-spec, "Error Codes"): an HTTP status and a body {"errors":[{"code","message","detail"}]}.
import { Failure } from "../lib/errors.ts";

/** The codes of the specification, then those that only the originals' registry has. */
const CODES = {
  BLOB_UNKNOWN: [404, "NotFound", "blob unknown to registry"],
  BLOB_UPLOAD_INVALID: [400, "InvalidArgument", "blob upload invalid"],
  BLOB_UPLOAD_UNKNOWN: [404, "NotFound", "blob upload unknown to registry"],
  DIGEST_INVALID: [400, "InvalidArgument", "provided digest did not match uploaded content"],
  MANIFEST_BLOB_UNKNOWN: [404, "NotFound", "blob unknown to registry"],
  MANIFEST_INVALID: [400, "InvalidArgument", "manifest invalid"],
  MANIFEST_UNKNOWN: [404, "NotFound", "manifest unknown"],
  NAME_INVALID: [400, "InvalidArgument", "invalid repository name"],
  NAME_UNKNOWN: [404, "NotFound", "repository name not known to registry"],
  SIZE_INVALID: [400, "InvalidArgument", "provided length did not match content length"],
  UNAUTHORIZED: [401, "Unauthenticated", "authentication required"],
  DENIED: [403, "PermissionDenied", "requested access to the resource is denied"],
  UNSUPPORTED: [405, "Unimplemented", "The operation is unsupported."],
  TOOMANYREQUESTS: [429, "ResourceExhausted", "too many requests"],
  RANGE_INVALID: [416, "InvalidArgument", "invalid content range"],
  TAG_INVALID: [400, "InvalidArgument", "manifest tag did not match URI"],
  PAGINATION_NUMBER_INVALID: [400, "InvalidArgument", "invalid number of results requested"],
  UNAVAILABLE: [503, "Unavailable", "service unavailable"],
  UNKNOWN: [500, "Unknown", "unknown error"],
} as const;

export type Code = keyof typeof CODES;

export interface RefusalOptions {
  message?: string;
  detail?: unknown;
  /** Where it is not the code's usual one. */
  status?: number;
  headers?: Record<string, string>;
}

export class Refusal extends Failure {
  readonly code: Code;
  readonly status: number;
  readonly detail: unknown;
  readonly headers: Record<string, string>;
  constructor(code: Code, options: RefusalOptions = {}) {
    super(CODES[code][1], options.message ?? CODES[code][2]);
    this.code = code;
    this.status = options.status ?? CODES[code][0];
    this.detail = options.detail;
    this.headers = options.headers ?? {};
  }
}

export const refuse = (code: Code, options?: RefusalOptions): Refusal => new Refusal(code, options);

/** The body of a refusal. */
export function errorBody(refusal: Refusal): string {
  const { code, message, detail } = refusal;
  return `${JSON.stringify({ errors: [{ code, message, ...(detail === undefined ? {} : { detail }) }] })}\n`;
}

/** Whatever was thrown, as an answer; `undefined` for the system's errors and defects, which the log gets and the client does not. */
export function asRefusal(error: unknown): Refusal | undefined {
  if (error instanceof Refusal) return error;
  const code = (error as { code?: unknown }).code;
  if (code === "ENOSPC" || code === "EDQUOT") return refuse("UNKNOWN", { status: 507, message: "the registry's disk is full" });
  if (error instanceof Failure) {
    if (error.kind === "InvalidArgument") return refuse("MANIFEST_INVALID", { message: error.message });
    if (error.kind === "Unavailable") return refuse("UNAVAILABLE", { status: 502, message: error.message });
    if (error.kind === "Unimplemented") return refuse("UNSUPPORTED", { message: error.message });
  }
  return undefined;
}
