// What a registry's error answers mean (distribution-spec, "Error Codes"), in the words that Docker gives them.
import { type ErrorKind, Failure } from "../lib/errors.ts";
import { familiarName, familiarReference, type Reference } from "../oci/index.ts";

/** One refused request. `code` is the registry's ("MANIFEST_UNKNOWN"), or "" where the body had none. */
export class RegistryError extends Failure {
  readonly status: number;
  readonly code: string;
  /** Milliseconds after which the registry wants to be asked again; undefined where it does not say. */
  readonly retryAfter: number | undefined;
  constructor(kind: ErrorKind, message: string, status: number, code: string, retryAfter?: number) {
    super(kind, message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

const KINDS: Record<number, ErrorKind> = {
  400: "InvalidArgument",
  401: "Unauthenticated",
  403: "PermissionDenied",
  404: "NotFound",
  405: "Unimplemented",
  429: "Unavailable",
  500: "Unavailable",
  502: "Unavailable",
  503: "Unavailable",
  504: "Unavailable",
};

/** Milliseconds of a Retry-After header (RFC 9110, 10.2.3): seconds, or a date. */
export function parseRetryAfter(header: string | null, now = Date.now()): number | undefined {
  if (!header) return undefined;
  if (/^\d{1,9}$/.test(header.trim())) return Number(header) * 1000;
  const at = Date.parse(header);
  return Number.isNaN(at) ? undefined : Math.max(0, at - now);
}

/** "manifest unknown: manifest unknown" from the body of an error answer, or what the status says. */
export function registryError(status: number, body: string, request: string, retryAfter?: number): RegistryError {
  let code = "";
  let message = "";
  try {
    const first = (JSON.parse(body) as { errors?: { code?: unknown; message?: unknown }[] }).errors?.[0];
    if (typeof first?.code === "string") code = first.code.slice(0, 100);
    if (typeof first?.message === "string") message = first.message.slice(0, 1000);
  } catch {
    // not every proxy in between speaks JSON: the status then says it all
  }
  const kind = KINDS[status] ?? "Unknown";
  if (code) {
    const words = code.toLowerCase().replaceAll("_", " ");
    return new RegistryError(kind, message ? `${words}: ${message}` : words, status, code, retryAfter);
  }
  const names: Record<number, [string, string]> = {
    401: ["UNAUTHORIZED", "unauthorized: authentication required"],
    403: ["DENIED", "denied: requested access to the resource is denied"],
    404: ["", "not found"],
    429: ["TOOMANYREQUESTS", "toomanyrequests: too many requests"],
  };
  const [implied, text] = names[status] ?? ["", ""];
  return new RegistryError(kind, text || `unexpected status from ${request}: ${status}`, status, implied, retryAfter);
}

/** The failure of a pull, as Docker words it. */
export function pullFailure(error: unknown, reference: Reference): unknown {
  // A registry that can't be reached is, over Docker's API, an error 500 like any other.
  if (error instanceof Failure && error.kind === "Unavailable" && !(error instanceof RegistryError))
    return new Failure("Unknown", error.message, { cause: error });
  if (!(error instanceof RegistryError)) return error;
  if (error.code === "DENIED") {
    const why = "repository does not exist or may require 'docker login'";
    return new Failure("NotFound", `pull access denied for ${familiarName(reference)}, ${why}: ${error.message}`, { cause: error });
  }
  if (error.code === "MANIFEST_UNKNOWN" || (error.status === 404 && error.code === ""))
    return new Failure("NotFound", `manifest for ${familiarReference(reference)} not found: ${error.message}`, { cause: error });
  if (error.code === "NAME_UNKNOWN")
    return new Failure("NotFound", `repository ${familiarName(reference)} not found: ${error.message}`, { cause: error });
  return new Failure("Unknown", error.message, { cause: error });
}
