// What a client wants attested of a build: the attributes attest:KIND, or the build arguments BUILDKIT_ATTEST_KIND, each a list of fields.
import { invalidArgument } from "../lib/errors.ts";
import { csvFields } from "./dockerfile/index.ts";

/** The predicate type of SPDX documents in in-toto statements. */
export const SPDX = "https://spdx.dev/Document";

const KINDS = ["sbom", "provenance"];
const NAME = /^(?:attest:|build-arg:BUILDKIT_ATTEST_)(.+)$/;

/** The fields of each kind that is wanted; a field without a value is "". InvalidArgument for other kinds. */
export function attestsOf(attrs: Readonly<Record<string, string>>): Map<string, Map<string, string>> {
  const found = new Map<string, Map<string, string>>();
  for (const [name, text] of Object.entries(attrs)) {
    const kind = NAME.exec(name)?.[1]?.toLowerCase();
    if (kind === undefined) continue;
    if (!KINDS.includes(kind)) throw invalidArgument(`unknown attestation type ${JSON.stringify(kind)}`);
    const fields = new Map<string, string>();
    for (const field of text === "" ? [] : csvFields(text)) {
      const equals = field.indexOf("=");
      if (equals < 0) fields.set(field, "");
      else fields.set(field.slice(0, equals), field.slice(equals + 1));
    }
    // buildx leaves out what is not wanted; other clients say so.
    const off = fields.has("false") || fields.has("0") || /^(1|t|true|)$/i.test(fields.get("disabled") ?? "false");
    if (!off) found.set(kind, fields);
  }
  return found;
}
