// Directories of ours that are OCI layouts (image-spec, image-layout.md), lent to a build as containerd's content service: images are read from them, caches are read
// and written. Which blobs the engine wants it says by digest; the layout's index is our own affair. Loaded only where a build has such a directory.
import {
  closeSync,
  createReadStream,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  Content,
  WriteAction,
  type WriteContentRequest,
  type WriteContentResponseSchema,
} from "../../gen/containerd/services/content/v1_pb.ts";
import type { Handler } from "../../lib/grpc/server.ts";
import { type CallContext, handlersOf, type Service } from "../../lib/grpc/services.ts";
import { CODE, GrpcError } from "../../lib/grpc/status.ts";
import { randomName } from "./names.ts";

const DIGEST = /^sha256:([0-9a-f]{64})$/;
const PIECE = 1 << 20;
const MAX_INDEX = 4 << 20;
const TAG = "org.opencontainers.image.ref.name";

interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
  annotations?: Record<string, string>;
}

const invalid = (message: string) => new GrpcError(message, CODE.INVALID_ARGUMENT);

function hexOf(digest: string): string {
  const match = DIGEST.exec(digest);
  if (!match) throw invalid(`invalid digest ${JSON.stringify(digest)}`);
  return match[1]!;
}

/** What one call writes: a file beside the blobs until it is known to be what it should. */
async function* write(
  directory: string,
  requests: AsyncIterable<WriteContentRequest>,
): AsyncGenerator<MessageInitShape<typeof WriteContentResponseSchema>> {
  const { createHash } = await import("node:crypto");
  const blobs = join(directory, "blobs/sha256");
  mkdirSync(blobs, { recursive: true });
  const temporary = join(blobs, `.${randomName()}.tmp`);
  const hash = createHash("sha256");
  let fd: number | undefined;
  let offset = 0;
  try {
    for await (const request of requests) {
      const { action, expected, total, data } = request;
      const there = expected !== "" && existsSync(join(blobs, hexOf(expected)));
      if (there) throw new GrpcError(`content ${expected}: already exists`, 6);
      if (data.length > 0) {
        if (Number(request.offset) !== offset) throw invalid(`got the offset ${request.offset}, expected ${offset}`);
        fd ??= openSync(temporary, "wx", 0o644);
        for (let rest = data; rest.length > 0; ) rest = rest.subarray(writeSync(fd, rest));
        hash.update(data);
        offset += data.length;
      }
      if (action !== WriteAction.COMMIT) {
        yield { action, offset: BigInt(offset), total };
        continue;
      }
      const hex = hash.digest("hex");
      if (expected !== "" && hex !== hexOf(expected))
        throw new GrpcError(`unexpected commit digest sha256:${hex}`, CODE.FAILED_PRECONDITION);
      if (total > 0n && total !== BigInt(offset)) throw new GrpcError(`unexpected commit size ${offset}`, CODE.FAILED_PRECONDITION);
      fd ??= openSync(temporary, "wx", 0o644);
      closeSync(fd);
      fd = undefined;
      renameSync(temporary, join(blobs, hex));
      yield { action, offset: BigInt(offset), total: BigInt(offset), digest: `sha256:${hex}` };
      return;
    }
  } finally {
    if (fd !== undefined) closeSync(fd);
    rmSync(temporary, { force: true });
  }
}

/** `stores`: directories by the names that the build has for them. */
export function layoutHandlers(stores: ReadonlyMap<string, string>): Map<string, Handler> {
  const storeOf = (context: CallContext): string => {
    const name = context.header("buildkit-attachable-store-id") ?? "";
    const directory = stores.get(name);
    if (directory === undefined) throw new GrpcError(`unknown content store ${JSON.stringify(name)}`, CODE.NOT_FOUND);
    return directory;
  };
  const blobOf = (context: CallContext, digest: string) => {
    const path = join(storeOf(context), "blobs/sha256", hexOf(digest));
    const stat = statSync(path, { throwIfNoEntry: false });
    if (!stat?.isFile()) throw new GrpcError(`content ${digest}: not found`, CODE.NOT_FOUND);
    return { path, size: stat.size };
  };
  const service: Service<typeof Content> = {
    async info({ digest }, context) {
      return { info: { digest, size: BigInt(blobOf(context, digest).size) } };
    },
    async *read({ digest, offset, size }, context) {
      const { path, size: whole } = blobOf(context, digest);
      const start = Number(offset);
      const end = size > 0n ? Math.min(whole, start + Number(size)) : whole;
      if (start < 0 || start > whole) throw new GrpcError(`the offset ${offset} is past the blob's end`, 11);
      if (end === start) return;
      let at = start;
      for await (const data of createReadStream(path, { start, end: end - 1, highWaterMark: PIECE })) {
        yield { offset: BigInt(at), data: data as Uint8Array };
        at += (data as Uint8Array).length;
      }
    },
    async *write(requests, context) {
      yield* write(storeOf(context), requests);
    },
    async status({ ref }) {
      throw new GrpcError(`ingest ${ref}: not found`, CODE.NOT_FOUND);
    },
    async listStatuses() {
      return {};
    },
    async abort() {
      return {};
    },
  };
  return handlersOf(Content, service);
}

function readIndex(directory: string): Descriptor[] {
  const path = join(directory, "index.json");
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) throw new Error(`${path} is not there: ${directory} is no OCI layout`);
  if (stat.size > MAX_INDEX) throw new Error(`${path} is too long`);
  const value: unknown = JSON.parse(readFileSync(path, "utf8"));
  const { manifests } = (value ?? {}) as { manifests?: unknown };
  if (!Array.isArray(manifests)) throw new Error(`${path} is no index of an OCI layout`);
  return manifests.filter((each): each is Descriptor => DIGEST.test(String((each as Descriptor | null)?.digest)));
}

/** The digest that a layout has under a tag; undefined where it has none. */
export function digestIn(directory: string, tag: string): string | undefined {
  const manifests = readIndex(directory);
  const tagged = manifests.find(({ annotations }) => annotations?.[TAG] === tag);
  // A layout of one image without a name is that image.
  const [only] = manifests;
  return tagged?.digest ?? (manifests.length === 1 && only?.annotations?.[TAG] === undefined ? only?.digest : undefined);
}

/** Gives a manifest that was written into a layout its tag. */
export function tagLayout(directory: string, descriptor: Descriptor, tag: string): void {
  const path = join(directory, "index.json");
  const before = existsSync(path) ? readIndex(directory) : [];
  const others = before.filter(({ annotations }) => annotations?.[TAG] !== tag);
  const manifests = [...others, { ...descriptor, annotations: { ...descriptor.annotations, [TAG]: tag } }];
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  const temporary = `${path}.${randomName()}.tmp`;
  writeFileSync(temporary, JSON.stringify({ schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests }));
  renameSync(temporary, path);
}
