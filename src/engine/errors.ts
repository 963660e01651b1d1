// What a failure is over HTTP: the kind's status, once for all endpoints.
import { type ErrorKind, Failure, messageOf } from "../lib/errors.ts";

const STATUS: Record<ErrorKind, number> = {
  InvalidArgument: 400,
  Unauthenticated: 401,
  PermissionDenied: 403,
  NotFound: 404,
  AlreadyExists: 409,
  Conflict: 409,
  FailedPrecondition: 412,
  NotModified: 304,
  Unavailable: 503,
  Unimplemented: 501,
  ResourceExhausted: 500,
  Cancelled: 499,
  DeadlineExceeded: 504,
  Unknown: 500,
};

/** HTTP status and sentence of whatever a handler threw. */
export function statusOf(error: unknown): { status: number; message: string } {
  return { status: error instanceof Failure ? STATUS[error.kind] : 500, message: messageOf(error) };
}
