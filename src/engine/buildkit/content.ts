// Content stores that the client has (OCI layouts): blobs are read from them for oci-layout:// sources and imported caches, and written to them by exports.
import { createHash } from "node:crypto";
import { createWriteStream, mkdirSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { finished } from "node:stream/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { FileTree, LocalDirectory } from "../../build/index.ts";
import { Content, WriteAction, type WriteContentRequestSchema } from "../../gen/containerd/services/content/v1_pb.ts";
import { invalidArgument, resourceExhausted } from "../../lib/errors.ts";
import { hexOf, isDigest, MAX_MANIFEST, parseManifest } from "../../oci/index.ts";
import { createQueue } from "./queue.ts";
import type { Session } from "./sessions.ts";

const PIECE = 1 << 20;
const MAX_BLOBS = 20_000;
const headersOf = (store: string) => ({ "buildkit-attachable-store-id": store, "containerd-namespace": "buildkit" });

/** Fetches a manifest or index with all that it leads to, as an OCI layout below `parent`. */
export async function fetchLayout(
  session: Session,
  store: string,
  digest: string,
  parent: string,
  signal: AbortSignal,
): Promise<LocalDirectory> {
  if (!isDigest(digest)) throw invalidArgument(`invalid digest ${digest}`);
  const client = session.client(Content);
  mkdirSync(parent, { recursive: true, mode: 0o700 });
  const directory = await mkdtemp(join(parent, "layout-"));
  const seen = new Set<string>();
  const both = AbortSignal.any([signal, session.closed]);

  async function fetch(blob: string, limit: number): Promise<Buffer | undefined> {
    if (!isDigest(blob)) throw invalidArgument(`invalid digest ${blob}`);
    if (seen.has(blob)) return undefined;
    seen.add(blob);
    if (seen.size > MAX_BLOBS) throw resourceExhausted(`${digest} leads to more than ${MAX_BLOBS} blobs`);
    const hash = createHash("sha256");
    const chunks: Buffer[] = [];
    const file = createWriteStream(join(directory, "blobs/sha256", hexOf(blob)), { flags: "wx", mode: 0o600 });
    let length = 0;
    try {
      for await (const { data } of client.read({ digest: blob }, { headers: headersOf(store), signal: both })) {
        hash.update(data);
        length += data.length;
        if (limit > 0) {
          if (length > limit) throw resourceExhausted(`${blob} is longer than ${limit} bytes`);
          chunks.push(Buffer.from(data));
        }
        if (!file.write(data)) await new Promise<void>((resolve) => file.once("drain", () => resolve()));
      }
    } finally {
      file.end();
      await finished(file).catch(() => {});
    }
    if (`sha256:${hash.digest("hex")}` !== blob) throw invalidArgument(`the client's content of ${blob} has another digest`);
    return limit > 0 ? Buffer.concat(chunks) : undefined;
  }

  async function follow(blob: string, mediaType: string, depth: number): Promise<void> {
    const bytes = await fetch(blob, MAX_MANIFEST);
    if (!bytes) return;
    const parsed = parseManifest(bytes, mediaType);
    if (parsed.index) {
      if (depth > 3) throw invalidArgument("image indexes are nested too deeply");
      for (const child of parsed.index.manifests) {
        // A layout need not hold all platforms; an index of cache blobs leads to blobs at once.
        const leads = /manifest|index/.test(child.mediaType);
        await (leads ? follow(child.digest, child.mediaType, depth + 1) : fetch(child.digest, 0)).catch((error: unknown) => {
          if (!(error instanceof ConnectError) || error.code !== Code.NotFound) throw error;
        });
      }
      return;
    }
    for (const child of [parsed.manifest.config, ...parsed.manifest.layers]) await fetch(child.digest, 0);
  }

  const release = () => rm(directory, { recursive: true, force: true });
  try {
    mkdirSync(join(directory, "blobs/sha256"), { recursive: true });
    await writeFile(join(directory, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
    await follow(digest, "", 0);
    return { directory, release };
  } catch (error) {
    await release();
    throw error;
  }
}

type Write = MessageInitShape<typeof WriteContentRequestSchema>;

/** Writes the blobs of an OCI layout to the client's store; its index is the client's own affair. */
export async function sendLayout(session: Session, store: string, tree: FileTree, signal: AbortSignal): Promise<void> {
  const client = session.client(Content);
  const both = AbortSignal.any([signal, session.closed]);
  for await (const { path, size } of tree.entries()) {
    const match = /^blobs\/sha256\/([0-9a-f]{64})$/.exec(path);
    if (!match) continue;
    const digest = `sha256:${match[1]}`;
    const requests = createQueue<Write>(8);
    const common = { ref: `jubako-${digest}`, total: BigInt(size), expected: digest };
    const sending = (async () => {
      let offset = 0;
      for await (const chunk of await tree.open(path)) {
        const data = chunk as Buffer;
        for (let at = 0; at < data.length; at += PIECE) {
          const piece = data.subarray(at, at + PIECE);
          requests.push({ action: WriteAction.WRITE, ...common, offset: BigInt(offset), data: piece });
          offset += piece.length;
          await requests.room();
        }
      }
      requests.push({ action: WriteAction.COMMIT, ...common, offset: BigInt(offset) });
      requests.end();
    })();
    sending.catch(() => requests.end());
    try {
      for await (const _ of client.write(requests, { headers: headersOf(store), signal: both }));
      await sending;
    } catch (error) {
      requests.end();
      if (!(error instanceof ConnectError) || error.code !== Code.AlreadyExists) throw error;
    }
  }
}
