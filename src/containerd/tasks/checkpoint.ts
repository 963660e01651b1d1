// Checkpoints of tasks as blobs: what a shim writes to a directory becomes a tar in the content store, and a task that is created from such a tar gets a
// directory again. Directories of ours are in ROOT/checkpoints: `write@…` while one is written, `restore@NAMESPACE@ID` until the task runs.
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { CheckpointOptionsSchema, OptionsSchema } from "../../gen/containerd/runc/v1_pb.ts";
import type { Descriptor, DescriptorSchema } from "../../gen/containerd/types_pb.ts";
import { entriesOf } from "../../lib/entries.ts";
import { invalidArgument, isKind } from "../../lib/errors.ts";
import { applyLayer } from "../../oci/index.ts";
import type { ContentStore } from "../content/store.ts";
import { type Call, namespaceOf } from "../service.ts";
import type { State } from "../state.ts";

export const CHECKPOINT = "application/vnd.containerd.container.criu.checkpoint.criu.tar";
const CONFIG = "application/vnd.containerd.container.checkpoint.config.v1+proto";

const directoryOf = (state: State) => join(state.root, "checkpoints");
const restoreDirectory = (state: State, namespace: string, id: string) => join(directoryOf(state), `restore@${namespace}@${id}`);

const isA = (any: Any | undefined, schema: { typeName: string }): any is Any =>
  any !== undefined && any.value.length > 0 && any.typeUrl.endsWith(schema.typeName);

/** Where the options of a task say that its images are. */
export function imagesToRestore(options: Any | undefined): string {
  return isA(options, OptionsSchema) ? fromBinary(OptionsSchema, options.value).criuImagePath : "";
}

/** Where the options of a checkpoint say that its images are to go; then no blob is made. */
export function imagesToWrite(options: Any | undefined): string {
  return isA(options, CheckpointOptionsSchema) ? fromBinary(CheckpointOptionsSchema, options.value).imagePath : "";
}

/** A directory with the images of a checkpoint's blob, for a task that is made. */
export async function unpackCheckpoint(state: State, content: ContentStore, call: Call, id: string, blob: Descriptor): Promise<string> {
  if (blob.mediaType !== CHECKPOINT) throw invalidArgument(`unsupported checkpoint type ${JSON.stringify(blob.mediaType)}`);
  const namespace = namespaceOf(call);
  const file = content.path(namespace, blob.digest);
  const directory = restoreDirectory(state, namespace, id);
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  try {
    await applyLayer({ file, root: directory, whiteouts: "ignore", signal: call.signal });
    return directory;
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
}

export function hasUnpacked(state: State, namespace: string, id: string): boolean {
  return existsSync(restoreDirectory(state, namespace, id));
}

/** Idempotent. */
export function dropUnpacked(state: State, namespace: string, id: string): void {
  rmSync(restoreDirectory(state, namespace, id), { recursive: true, force: true });
}

/** What a manager that was killed left behind. */
export function dropStale(state: State, isTask: (namespace: string, id: string) => boolean): void {
  for (const name of entriesOf(directoryOf(state))) {
    const [kind, namespace = "", id = ""] = name.split("@");
    if (kind !== "restore" || !isTask(namespace, id)) rmSync(join(directoryOf(state), name), { recursive: true, force: true });
  }
}

/** Has `checkpoint` write images to a directory and makes blobs of them and of the container's specification. */
export async function packCheckpoint(
  state: State,
  content: ContentStore,
  call: Call,
  spec: Any | undefined,
  checkpoint: (directory: string) => Promise<unknown>,
): Promise<MessageInitShape<typeof DescriptorSchema>[]> {
  mkdirSync(directoryOf(state), { recursive: true, mode: 0o700 });
  const directory = mkdtempSync(join(directoryOf(state), "write@"));
  try {
    await checkpoint(directory);
    const { layerTar } = await import("../diff/layer-tar.ts");
    const tar = layerTar([], [directory], { epoch: undefined, signal: call.signal });
    const images = await writeBlob(content, call, directory, CHECKPOINT, tar);
    const config = [toBinary(AnySchema, spec ?? create(AnySchema))];
    return [images, await writeBlob(content, call, `${directory}/spec`, CONFIG, config)];
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function writeBlob(
  content: ContentStore,
  call: Call,
  ref: string,
  mediaType: string,
  pieces: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): Promise<MessageInitShape<typeof DescriptorSchema>> {
  const writer = await content.writer({ namespace: namespaceOf(call), ref, expected: "", total: 0, lease: call.lease });
  try {
    for await (const piece of pieces) await writer.write(piece);
    const size = writer.status().offset;
    const digest = writer.digest();
    await writer.commit({ size, expected: "", labels: {} }).catch((error) => {
      if (!isKind(error, "AlreadyExists")) throw error;
    });
    return { mediaType, digest, size: BigInt(size) };
  } finally {
    await writer.close();
  }
}
