// POST /images/create?fromSrc=: a tar of a file system becomes an image of one layer.
import { Readable } from "node:stream";
import { invalidArgument, unavailable } from "../../lib/errors.ts";
import {
  type Descriptor,
  decompressed,
  detectCompression,
  familiarReference,
  layerType,
  type Platform,
  parseReference,
  parseTag,
  withDefaultTag,
} from "../../oci/index.ts";
import type { Call } from "../route.ts";
import { applyChanges } from "./changes.ts";
import { withLease, writeBlob } from "./content.ts";
import { type Core, keepDangling, publish, tagImage } from "./core.ts";
import { makeImage } from "./make.ts";
import type { ProgressSink } from "./progress.ts";
import { createSpool, filePieces, spoolFile } from "./spool.ts";
import { applyFirstLayer } from "./unpack.ts";

async function sourceOf(source: string, call: Call, sink: ProgressSink, signal: AbortSignal): Promise<Readable> {
  if (source === "-") return call.body;
  let url: URL;
  try {
    url = new URL(/^[a-z]+:\/\//.test(source) ? source : `http://${source}`);
  } catch {
    throw invalidArgument(`invalid source ${JSON.stringify(source)}`);
  }
  if (url.protocol !== "http:" && url.protocol !== "https:")
    throw invalidArgument(`unsupported protocol scheme in ${JSON.stringify(source)}`);
  sink.line({ status: `Downloading from ${url.href}` });
  const response = await fetch(url.href, { signal }).catch((error: unknown) => {
    throw unavailable(`Get "${url.href}": ${error instanceof Error ? error.message : String(error)}`, error);
  });
  if (!response.ok || !response.body) throw unavailable(`Get "${url.href}": HTTP status ${response.status}`);
  return Readable.fromWeb(response.body as never);
}

export async function importImage(
  core: Core,
  call: Call,
  platform: Platform | undefined,
  sink: ProgressSink,
  signal: AbortSignal,
): Promise<void> {
  const { query } = call;
  const source = query.get("fromSrc") ?? "";
  if (source === "") throw invalidArgument("neither fromImage nor fromSrc is given");
  const repo = query.get("repo") ?? "";
  const tag = query.get("tag") ?? "";
  let reference: ReturnType<typeof parseReference> | undefined;
  if (repo !== "") {
    reference = parseReference(repo);
    if (reference.digest !== undefined) throw invalidArgument("cannot import digest reference");
    reference = withDefaultTag(tag ? { ...reference, tag: parseTag(tag) } : reference);
  }
  const config = applyChanges({}, query.getAll("changes"));
  const comment = query.get("message") || `Imported from ${source}`;
  await using spool = createSpool(core.engine);
  const path = spool.path("layer.tar");
  const body = await sourceOf(source, call, sink, signal);
  const { digest, size, head } = await spoolFile(path, decompressed(body, ["gzip", "zstd"]), signal);
  const layer: Descriptor = { mediaType: layerType(detectCompression(head)), digest, size };
  const id = await withLease(core.engine.manager, async (lease) => {
    await writeBlob(core.engine.manager, { descriptor: layer, labels: {}, lease, signal }, (offset) => filePieces(path, offset));
    const diffId = await applyFirstLayer(core.engine.manager, layer, lease, signal);
    const created = new Date().toISOString();
    const image = await makeImage(
      core,
      { config, diffIds: [diffId], layers: [layer], history: [{ created, comment }], author: "", comment, platform },
      lease,
    );
    if (reference) await tagImage(core, reference, image.target, lease);
    else await keepDangling(core, image.target);
    return image.id;
  });
  sink.line({ status: id });
  if (reference) publish(core, "tag", id, familiarReference(reference));
  publish(core, "import", id, reference ? familiarReference(reference) : id);
}
