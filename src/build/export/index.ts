// Exports of a build's result: an image in the content store, an archive of one (oci, docker), files (local, tar).
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { failedPrecondition, invalidArgument, unimplemented } from "../../lib/errors.ts";
import {
  blobPath,
  type Descriptor,
  familiarReference,
  formatReference,
  imageArchive,
  isIndexType,
  MAX_MANIFEST,
  MEDIA,
  parseManifest,
  parseReference,
  withDefaultTag,
} from "../../oci/index.ts";
import { hasBlob, readBlob, streamBlob } from "../content.ts";
import type { ExportAnswer, ExportSink, FileTree, Result } from "../session.ts";
import type { ExportContext } from "./context.ts";
import { type MadeImage, makeImage } from "./image.ts";
import { type ImageOptions, imageOptions, isTrue } from "./options.ts";
import { blobTree, sizedFile, treeTar, withResultTree } from "./trees.ts";

function answerOf({ target, descriptor, configDigest }: MadeImage, names: readonly string[]): ExportAnswer {
  return {
    "containerimage.digest": target.digest,
    "containerimage.descriptor": Buffer.from(JSON.stringify(descriptor)).toString("base64"),
    ...(configDigest ? { "containerimage.config.digest": configDigest } : {}),
    ...(names.length > 0 ? { "image.name": names.join(",") } : {}),
  };
}

const CREATED = "org.opencontainers.image.created";

function archiveNames(context: ExportContext, options: ImageOptions, made: MadeImage) {
  const epoch = options.epoch ?? context.epoch;
  const created = new Date(epoch === undefined ? Date.now() : epoch * 1000).toISOString().replace(/\.\d+Z$/, "Z");
  const base = { [CREATED]: created, ...made.descriptor.annotations };
  const names = options.names.map((name) => {
    const reference = withDefaultTag(parseReference(name));
    const annotations = {
      ...base,
      "io.containerd.image.name": formatReference(reference),
      "org.opencontainers.image.ref.name": reference.tag ?? "",
    };
    return { reference, annotations, repoTag: familiarReference(reference) };
  });
  return { target: made.target, names, annotations: base };
}

/** The client is told of the archive's descriptor with its time, and of whole names. */
function archiveAnswer(made: MadeImage, { names, annotations }: ReturnType<typeof archiveNames>): ExportAnswer {
  return answerOf(
    { ...made, descriptor: { ...made.descriptor, annotations } },
    names.map(({ reference }) => formatReference(reference)),
  );
}

/** An OCI layout as a tree, for a client that wants a directory. */
async function layoutTree(
  context: ExportContext,
  made: MadeImage,
  { names, annotations }: ReturnType<typeof archiveNames>,
): Promise<FileTree> {
  const { manager } = context.host;
  const files = new Map<string, { size: number; open(): Readable }>();
  const take = async ({ digest, size, mediaType }: Descriptor): Promise<void> => {
    files.set(blobPath(digest), { size, open: () => Readable.from(streamBlob(manager, digest)) });
    const document = isIndexType(mediaType) || mediaType === MEDIA.ociManifest || mediaType === MEDIA.dockerManifest;
    if (!document) return;
    const { manifest, index } = parseManifest(await readBlob(manager, digest, MAX_MANIFEST), mediaType);
    for (const child of index ? index.manifests : [manifest.config, ...manifest.layers]) await take(child);
  };
  await take(made.target);
  const base = { mediaType: made.target.mediaType, digest: made.target.digest, size: made.target.size };
  const manifests = names.length > 0 ? names.map((each) => ({ ...base, annotations: each.annotations })) : [{ ...base, annotations }];
  const json = (value: unknown) => sizedFile(Buffer.from(JSON.stringify(value)));
  files.set("index.json", json({ schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests }));
  files.set("oci-layout", json({ imageLayoutVersion: "1.0.0" }));
  return blobTree(files);
}

/** Whether it is an export that can be, before anything is built for it. InvalidArgument, Unimplemented. */
export function checkExport({ type, attrs }: { type: string; attrs: Record<string, string> }): void {
  if (["image", "oci", "docker"].includes(type)) imageOptions(attrs);
  else if (!["tar", "local"].includes(type)) throw unimplemented(`exports of the type ${type}`);
}

const need = <T>(part: T | undefined, type: string): T => {
  if (!part) throw failedPrecondition(`exports of the type ${type} have nowhere to go here`);
  return part;
};

export async function exportResult(
  context: ExportContext,
  result: Result,
  { type, attrs }: { type: string; attrs: Record<string, string> },
  sink: ExportSink,
): Promise<ExportAnswer> {
  const { host, lease, signal, status } = context;
  switch (type) {
    case "image": {
      const image = need(sink.image, type);
      // A build argument that asks for it is older than the attribute.
      const inline = context.request?.attrs["build-arg:BUILDKIT_INLINE_CACHE"];
      const given = imageOptions({ ...metadataAnnotations(result), ...(inline ? { "inline-cache": inline } : {}), ...attrs });
      const names = namesOf(given, result);
      // What registries get is compressed; what stays here need not be.
      const options = {
        ...given,
        names,
        compression: given.compression ?? (given.push ? ("gzip" as const) : undefined),
        inlineAttestations: given.inlineAttestations ?? true,
      };
      if (isTrue(attrs, "unpack")) {
        for (const ref of result.refs.size > 0 ? result.refs.values() : [result.ref])
          await context.workspace.ready(await context.treeOf(ref));
      }
      const made = await makeImage(context, result, options);
      const named = await image({ ...made, names, attrs, lease }, status);
      return answerOf(made, named ?? names);
    }
    case "oci":
    case "docker": {
      const given = imageOptions({ ...metadataAnnotations(result), ...attrs });
      const options = { ...given, names: namesOf(given, result), compression: given.compression ?? ("gzip" as const) };
      if (type === "docker" && result.refs.size > 0)
        throw invalidArgument("docker exporter does not currently support exporting manifest lists");
      const made = await makeImage(context, result, options);
      const named = archiveNames(context, options, made);
      if (!isTrue(attrs, "tar", true)) {
        await need(sink.tree, type)(await layoutTree(context, made, named), status);
        return archiveAnswer(made, named);
      }
      const { manager } = host;
      const source = {
        has: (digest: string) => hasBlob(manager, digest),
        read: (digest: string, limit: number) => readBlob(manager, digest, limit),
        open: (digest: string) => streamBlob(manager, digest),
      };
      const { tar } = await imageArchive(source, [named], { layoutOnly: type === "oci", signal });
      await send(tar, sink, type, context);
      return archiveAnswer(made, named);
    }
    case "tar":
      // A tar of several platforms always has a directory for each.
      await withResultTree(context, result, { ...attrs, "platform-split": String(result.refs.size > 0) }, (tree) =>
        send(treeTar(tree), sink, type, context),
      );
      return {};
    case "local": {
      const receive = need(sink.tree, type);
      await withResultTree(context, result, attrs, (tree) => receive(tree, status));
      return {};
    }
    default:
      throw unimplemented(`exports of the type ${type}`);
  }
}

async function send(tar: AsyncIterable<Uint8Array>, sink: ExportSink, type: string, { signal, status }: ExportContext): Promise<void> {
  const out = await need(sink.stream, type)(status);
  let sent = 0;
  const name = "sending tarball";
  const tell = (completed: boolean) => status({ id: name, name, current: sent, total: 0, completed });
  async function* counted() {
    let told = 0;
    for await (const piece of tar) {
      sent += piece.length;
      if (sent - told > 1 << 22) {
        told = sent;
        tell(false);
      }
      yield piece;
    }
  }
  tell(false);
  await pipeline(Readable.from(counted()), out, { signal });
  tell(true);
}

/** "*" is the name that the frontend gave. */
function namesOf({ names }: ImageOptions, { metadata }: Result): string[] {
  const given = metadata.get("image.name");
  return names.length === 1 && names[0] === "*" && given ? Buffer.from(given).toString("utf8").split(",") : names;
}

/** Annotations that a frontend gave. */
function metadataAnnotations({ metadata }: Result): Record<string, string> {
  const found = [...metadata].filter(([name]) => /^annotation[-.[]/.test(name));
  return Object.fromEntries(found.map(([name, value]) => [name, Buffer.from(value).toString("utf8")]));
}
