// Failures and gRPC status codes, mapped once for both directions. The texts end as containerd's do ("…: not found"), because its clients cut that
// ending off again.
import { Code, ConnectError } from "@connectrpc/connect";
import { type ErrorKind, Failure } from "../lib/errors.ts";

const table: [ErrorKind, Code, string][] = [
  ["InvalidArgument", Code.InvalidArgument, "invalid argument"],
  ["Unauthenticated", Code.Unauthenticated, "unauthenticated"],
  ["PermissionDenied", Code.PermissionDenied, "permission denied"],
  ["NotFound", Code.NotFound, "not found"],
  ["AlreadyExists", Code.AlreadyExists, "already exists"],
  ["Conflict", Code.Aborted, "aborted"],
  ["FailedPrecondition", Code.FailedPrecondition, "failed precondition"],
  ["NotModified", Code.FailedPrecondition, "not modified"],
  ["Unavailable", Code.Unavailable, "unavailable"],
  ["Unimplemented", Code.Unimplemented, "not implemented"],
  ["ResourceExhausted", Code.ResourceExhausted, "resource exhausted"],
  ["Cancelled", Code.Canceled, "context canceled"],
  ["DeadlineExceeded", Code.DeadlineExceeded, "context deadline exceeded"],
  ["Unknown", Code.Unknown, "unknown"],
];
const byKind = new Map(table.map(([kind, code, ending]) => [kind, { code, ending }]));
const byCode = new Map<Code, ErrorKind>();
for (const [kind, code] of table) if (!byCode.has(code)) byCode.set(code, kind);

export function toConnectError(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error;
  if (!(error instanceof Failure)) return new ConnectError(error instanceof Error ? error.message : String(error), Code.Unknown);
  const { code, ending } = byKind.get(error.kind)!;
  const whole = error.kind === "Unknown" || error.message.endsWith(ending) ? error.message : `${error.message}: ${ending}`;
  return new ConnectError(whole, code);
}

export function fromConnectError(error: unknown): unknown {
  if (!(error instanceof ConnectError)) return error;
  if (/\b(ENOENT|ECONNREFUSED|ECONNRESET|EPIPE)\b/.test(error.rawMessage)) {
    return new Failure("Unavailable", `containerd does not answer: ${error.rawMessage}`, { cause: error });
  }
  const kind = byCode.get(error.code) ?? (error.code === Code.OutOfRange ? "InvalidArgument" : "Unknown");
  const ending = `: ${byKind.get(kind)!.ending}`;
  const message = error.rawMessage.endsWith(ending) ? error.rawMessage.slice(0, -ending.length) : error.rawMessage;
  return new Failure(kind, message, { cause: error });
}
