// POST /images/create?fromSrc=: a tar of a file system becomes an image of one layer.
import { Readable } from "node:stream";
import { invalidArgument, unavailable } from "../../lib/errors.ts";
import {
  type Descriptor,
  type Digest,
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
import { type Lease, withLease, writeBlob } from "./content.ts";
import { type Core, keepDangling, publish, tagImage } from "./core.ts";
import { makeImage } from "./make.ts";
import type { ProgressSink } from "./progress.ts";
import { createSpool, filePieces, spoolFile } from "./spool.ts";
import { applyFirstLayer } from "./unpack.ts";

/** Bytes that tell a compression. */
const HEAD = 8;

/** A stream becomes the layer of an image: in one pass where the manager is in this process, else by way of a file. */
async function makeLayer(
  core: Core,
  body: AsyncIterable<Uint8Array>,
  lease: Lease,
  signal: AbortSignal,
): Promise<{ layer: Descriptor; diffId: Digest }> {
  const { manager } = core.engine;
  const { layers: receiver } = manager;
  if (receiver) {
    let head: Uint8Array = new Uint8Array(0);
    const open = async function* () {
      for await (const piece of body) {
        if (head.length < HEAD) head = Buffer.concat([head, piece.subarray(0, HEAD)]);
        yield piece;
      }
    };
    const options = { descriptor: undefined, diffId: undefined, lowest: true, labels: {}, lease: lease.id, signal, open };
    const received = await receiver.receive(options);
    received.commit(received.diffId, "");
    return {
      layer: { mediaType: layerType(detectCompression(head)), digest: received.digest, size: received.size },
      diffId: received.diffId,
    };
  }
  await using spool = createSpool(core.engine);
  const path = spool.path("layer.tar");
  const { digest, size, head } = await spoolFile(path, body, signal);
  const layer: Descriptor = { mediaType: layerType(detectCompression(head)), digest, size };
  await writeBlob(manager, { descriptor: layer, labels: {}, lease, signal }, (offset) => filePieces(path, offset));
  return { layer, diffId: await applyFirstLayer(manager, layer, lease, signal) };
}

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
  const body = decompressed(await sourceOf(source, call, sink, signal), ["gzip", "zstd"]);
  const id = await withLease(core.engine.manager, async (lease) => {
    const { layer, diffId } = await makeLayer(core, body, lease, signal);
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
