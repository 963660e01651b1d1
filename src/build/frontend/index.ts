// The Dockerfile frontend: from the attributes that a client sends to trees and image configs, in LLB. `# syntax=docker/dockerfile` means this
// one, whatever version it names; an error about another image says which it is (foreignFrontend), for whoever can run it.
//
//   const result = await frontend({ name: "dockerfile.v0", attrs: { filename: "Dockerfile", "build-arg:A": "1" }, session, host, signal, onWarning });
//   result.metadata.get("containerimage.config");             // JSON of an image config; with several platforms "containerimage.config/linux/amd64", …
//   result.metadata.get("refs.platforms");                     // JSON { Platforms: [{ ID, Platform }] }: what it was made for
//
// Subrequests (attribute requestid: frontend.subrequests.describe, frontend.outline, frontend.targets, frontend.lint) answer result.json, result.txt and version in
// the metadata and no tree. Errors that are about lines of the Dockerfile carry `range` and `source` (filename, data).
//
// A Dockerfile's life: its text is read from a source (context.ts), becomes typed instructions (dockerfile/), stages become operations that refer to each other
// (convert.ts, run.ts, copy.ts), and these are marshalled at last (nodes.ts).
import { invalidArgument, messageOf, unimplemented } from "../../lib/errors.ts";
import { formatPlatform, hostPlatform, normalise } from "../../oci/index.ts";
import {
  checkText,
  createLinter,
  type Dockerfile,
  type Linter,
  type LintWarning,
  parseCheck,
  parseDockerfile,
  syntaxOf,
} from "../dockerfile/index.ts";
import type { Result } from "../session.ts";
import { openContexts } from "./context.ts";
import { type Conversion, convert } from "./convert.ts";
import { imageConfig } from "./image.ts";
import { createMarshaller, rangeMessage } from "./nodes.ts";
import { type FrontendOptions, parseOptions, targetsOf } from "./options.ts";
import { describe, lint, outline, targets, unknownRequest } from "./requests.ts";
import { createScanner, type Scanner } from "./sbom.ts";
import type { FrontendRequest } from "./types.ts";

/** Images that are Dockerfile frontends: docker/dockerfile and mirrors of it. */
const OURS = /(^|\/)(dockerfile|dockerfile-upstream)(:[\w.-]+)?(@sha256:[0-9a-f]{64})?$/;

/** The image of a frontend that is not ours, where an error is about one: whoever can run it does so with these attributes more. */
export function foreignFrontend(error: unknown): { source: string; attrs: Record<string, string> } | undefined {
  return error instanceof Error && "frontendImage" in error ? (error.frontendImage as ReturnType<typeof foreignFrontend>) : undefined;
}

function checkName({ name, attrs }: FrontendRequest, syntax: string | undefined): void {
  const line = attrs["build-arg:BUILDKIT_SYNTAX"] ?? syntax;
  const source = name === "gateway.v0" ? (attrs.source ?? "") : line?.split(/\s+/)[0];
  if (source === undefined || OURS.test(source)) return;
  if (source === "") throw invalidArgument("no source specified for gateway");
  const forwarded = name === "gateway.v0" ? {} : { source, cmdline: line! };
  throw Object.assign(unimplemented(`the frontend image ${source}`), { frontendImage: { source, attrs: forwarded } });
}

function tell(
  request: FrontendRequest,
  vertex: string,
  source: { filename: string; data: Uint8Array },
  warnings: readonly LintWarning[],
): void {
  for (const { rule, message, description, url, range } of warnings)
    request.onWarning({
      kind: "warning",
      vertex,
      level: 1,
      short: `${rule}: ${message} (line ${range.start})`,
      detail: [description],
      url,
      source: { $typeName: "pb.SourceInfo", ...source, language: "Dockerfile" },
      ranges: [rangeMessage(range) as never],
    });
}

async function conversions(
  request: FrontendRequest,
  options: FrontendOptions,
  file: Dockerfile,
  linter: Linter,
  contexts: Awaited<ReturnType<typeof openContexts>>["contexts"],
): Promise<Conversion[]> {
  const made: Conversion[] = [];
  for (const platform of targetsOf(options))
    made.push(
      await convert(file, {
        ...options,
        platform,
        buildPlatform: hostPlatform(),
        platformGiven: options.platforms.length > 0,
        showPlatform: options.platforms.length > 1,
        contexts,
        linter,
        classic: false,
        resolveImage: (ref, wanted) => request.host.resolveImage(ref, wanted, options.resolveMode),
      }),
    );
  return made;
}

export async function frontend(request: FrontendRequest): Promise<Result> {
  if (!["", "dockerfile.v0", "gateway.v0"].includes(request.name)) throw unimplemented(`the frontend ${request.name}`);
  // A frontend of another's has attributes of its own, and perhaps no Dockerfile.
  if (request.name === "gateway.v0") checkName(request, undefined);
  const options = parseOptions(request.attrs);
  if (options.request === "frontend.subrequests.describe") return describe();
  const { contexts, dockerfile } = await openContexts(request, options);
  const source = { filename: dockerfile.filename, data: Buffer.from(dockerfile.text), language: "Dockerfile" };
  const located = (error: unknown): never => {
    if (error instanceof Error && !("source" in error)) Object.assign(error, { source });
    throw error;
  };
  const named = { filename: dockerfile.filename, text: dockerfile.text };
  let linter = createLinter(parseCheck(options.check));
  try {
    // Before anything of it is read: it may be in another language.
    checkName(request, syntaxOf(dockerfile.text));
    const file = parseDockerfile(dockerfile.text);
    linter = createLinter(parseCheck(options.check ?? file.directives.check));
    checkText(file, linter);
    if (options.request === "frontend.targets") return targets(file, named);
    const scanning = options.sbom && options.request === undefined ? createScanner(request, options.sbom, options.resolveMode) : undefined;
    const [made, scanner] = await Promise.all([conversions(request, options, file, linter, contexts), scanning]);
    if (options.request === "frontend.lint") return lint(linter.warnings, named, undefined, linter.violated());
    if (options.request === "frontend.outline") return outline(made[0]!, named);
    if (options.request !== undefined) return unknownRequest(options.request);
    tell(request, dockerfile.vertex, source, linter.warnings);
    const violated = linter.violated();
    if (violated) throw Object.assign(invalidArgument(violated), { range: linter.warnings[0]!.range });
    contexts.finish();
    return resultOf(request, options, made, source, scanner);
  } catch (error) {
    if (options.request === "frontend.lint") {
      const range = error instanceof Error && "range" in error ? (error.range as LintWarning["range"]) : undefined;
      return lint(linter.warnings, named, { message: messageOf(error), range }, undefined);
    }
    return located(error);
  }
}

function resultOf(
  request: FrontendRequest,
  options: FrontendOptions,
  made: readonly Conversion[],
  source: { filename: string; data: Uint8Array },
  scan: Scanner | undefined,
): Result {
  const marshaller = createMarshaller(source);
  const result: Result = { ref: undefined, refs: new Map(), metadata: new Map(), attestations: new Map() };
  const platforms: { ID: string; Platform: Record<string, unknown> }[] = [];
  for (const [i, { result: state, scanned }] of made.entries()) {
    const ref = request.session.load(marshaller.definition(state.output));
    const config = imageConfig(state);
    const platform = normalise(targetsOf(options)[i]!);
    const ID = formatPlatform(platform);
    if (options.multiPlatform) {
      result.refs.set(ID, ref);
      result.metadata.set(`containerimage.config/${ID}`, config);
    } else {
      result.ref = ref;
      result.metadata.set("containerimage.config", config);
    }
    platforms.push({ ID, Platform: { ...platform } });
    if (scan) result.attestations.set(ID, [scan(ID, scanned, marshaller)]);
  }
  result.metadata.set("refs.platforms", Buffer.from(JSON.stringify({ Platforms: platforms })));
  return result;
}
