// What a scanner says of an image's files is completed by which layer each of them is from.
import { posix } from "node:path";
import { createTarReader } from "../../oci/index.ts";
import { streamBlob } from "../content.ts";
import type { Layer } from "../host.ts";
import type { Statement } from "./attestations.ts";
import type { ExportContext } from "./context.ts";
import { plainLayer } from "./layers.ts";

const VERSION = /^SPDX-2\.[123]$/;

/** Absolute paths of what a layer adds. */
async function pathsOf(layer: Layer, { host, signal }: ExportContext): Promise<Set<string>> {
  const found = new Set<string>();
  const reader = createTarReader({
    entry({ name }) {
      if (!posix.basename(name).startsWith(".wh.")) found.add(posix.join("/", Buffer.from(name, "latin1").toString("utf8")));
    },
    data() {},
    hole() {},
    finish() {},
  });
  const { digest, mediaType } = layer.descriptor;
  for await (const piece of plainLayer(streamBlob(host.manager, digest), mediaType)) {
    signal.throwIfAborted();
    reader.push(piece, 0, piece.length);
  }
  reader.end();
  return found;
}

interface SpdxFile {
  fileName?: unknown;
  comment?: unknown;
}

/** The statement with a comment at each file, `layerID: sha256:…`, the topmost layer that has it; a comment of the scanner stays. */
export async function withLayers(statement: Statement, layers: readonly Layer[], context: ExportContext): Promise<Statement> {
  const document = statement.predicate as { spdxVersion?: unknown; files?: unknown; creationInfo?: unknown } | null;
  if (typeof document !== "object" || document === null || !VERSION.test(String(document.spdxVersion))) return statement;
  const files = Array.isArray(document.files) ? (document.files as SpdxFile[]) : [];
  const pathOf = (file: SpdxFile | null): string | undefined =>
    typeof file?.fileName === "string" && !file.comment ? posix.join("/", file.fileName) : undefined;
  const left = new Set(files.flatMap((file) => pathOf(file) ?? []));
  const from = new Map<string, string>();
  for (const layer of layers.toReversed()) {
    if (left.size === 0) break;
    const paths = await pathsOf(layer, context);
    for (const path of left) if (paths.has(path)) from.set(path, layer.descriptor.digest);
    for (const path of from.keys()) left.delete(path);
  }
  const commented = files.map((file) => {
    const digest = from.get(pathOf(file) ?? "");
    return digest === undefined ? file : { ...file, comment: `layerID: ${digest}` };
  });
  const info = (document.creationInfo ?? {}) as { creators?: unknown };
  const creators = [...(Array.isArray(info.creators) ? info.creators : []), "Tool: jubako"];
  const predicate = { ...document, ...(files.length > 0 ? { files: commented } : {}), creationInfo: { ...info, creators } };
  return { ...statement, predicate };
}
