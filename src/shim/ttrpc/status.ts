// Errors over ttrpc: google.rpc.Status with gRPC's codes (https://grpc.io/docs/guides/status-codes/), to and from the kinds of lib/errors.
import { type ErrorKind, Failure, messageOf } from "../../lib/errors.ts";

const codes: Record<ErrorKind, number> = {
  Cancelled: 1,
  Unknown: 2,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  AlreadyExists: 6,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  NotModified: 9,
  Conflict: 10,
  Unimplemented: 12,
  Unavailable: 14,
  Unauthenticated: 16,
};

const kinds = new Map<number, ErrorKind>();
for (const [kind, code] of Object.entries(codes)) if (!kinds.has(code)) kinds.set(code, kind as ErrorKind);

export function statusOf(error: unknown): { code: number; message: string } {
  return { code: error instanceof Failure ? codes[error.kind] : codes.Unknown, message: messageOf(error) };
}

export function failureOf(status: { code: number; message: string }): Failure {
  return new Failure(kinds.get(status.code) ?? "Unknown", status.message);
}
