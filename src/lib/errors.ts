// The errors that cross a seam. A layer throws one of these kinds with a sentence that says what and why; each door maps the kind once
// (HTTP status in engine/http, gRPC code in containerd/grpc). Anything else that is thrown is a defect or the system's, and becomes Unknown / 500.

export type ErrorKind =
  | "InvalidArgument" // 400, INVALID_ARGUMENT
  | "Unauthenticated" // 401, UNAUTHENTICATED
  | "PermissionDenied" // 403, PERMISSION_DENIED
  | "NotFound" // 404, NOT_FOUND
  | "AlreadyExists" // 409, ALREADY_EXISTS
  | "Conflict" // 409, ABORTED
  | "FailedPrecondition" // 412 / 500 as the endpoint says, FAILED_PRECONDITION
  | "NotModified" // 304
  | "Unavailable" // 503, UNAVAILABLE
  | "Unimplemented" // 501, UNIMPLEMENTED
  | "ResourceExhausted" // 507 / 429, RESOURCE_EXHAUSTED
  | "Cancelled" // 499, CANCELLED
  | "DeadlineExceeded" // 504, DEADLINE_EXCEEDED
  | "Unknown"; // 500, UNKNOWN

/** An error with a kind. `message` is a whole sentence for the user; `cause` keeps what lay beneath. */
export class Failure extends Error {
  readonly kind: ErrorKind;
  constructor(kind: ErrorKind, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = kind;
    this.kind = kind;
  }
}

const maker = (kind: ErrorKind) => (message: string, cause?: unknown) => new Failure(kind, message, cause === undefined ? {} : { cause });

export const invalidArgument = maker("InvalidArgument");
export const unauthenticated = maker("Unauthenticated");
export const permissionDenied = maker("PermissionDenied");
export const notFound = maker("NotFound");
export const alreadyExists = maker("AlreadyExists");
export const conflict = maker("Conflict");
export const failedPrecondition = maker("FailedPrecondition");
export const notModified = maker("NotModified");
export const unavailable = maker("Unavailable");
export const unimplemented = maker("Unimplemented");
export const resourceExhausted = maker("ResourceExhausted");
export const cancelled = maker("Cancelled");
export const unknown = maker("Unknown");

export function isKind(error: unknown, kind: ErrorKind): boolean {
  return error instanceof Failure && error.kind === kind;
}

/** The sentence of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
