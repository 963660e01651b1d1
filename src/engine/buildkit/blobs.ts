// Blobs that records of builds name, for clients that look into them: provenance, and the images that came of builds. containerd's content service, reading only.
import type { Content } from "../../gen/containerd/services/content/v1_pb.ts";
import { invalidArgument } from "../../lib/errors.ts";
import type { Service } from "../../lib/grpc/services.ts";
import { isDigest } from "../../oci/index.ts";
import { toConnectError } from "./errors.ts";
import type { BuildKit } from "./index.ts";

const PIECE = 1 << 20;

export function blobService(kit: BuildKit): Service<typeof Content> {
  const { manager } = kit.engine;
  const checked = (digest: string) => {
    if (!isDigest(digest)) throw invalidArgument(`invalid digest ${JSON.stringify(digest)}`);
    return digest;
  };
  return {
    async info({ digest }) {
      try {
        const own = kit.history.document(checked(digest));
        if (own) return { info: { digest, size: BigInt(own.length) } };
        return await manager.content.info({ digest });
      } catch (error) {
        throw toConnectError(error);
      }
    },
    async *read({ digest, offset, size }, { signal }) {
      try {
        const own = kit.history.document(checked(digest));
        if (!own) {
          yield* manager.content.read({ digest, offset, size }, { signal });
          return;
        }
        const end = size > 0n ? Math.min(own.length, Number(offset + size)) : own.length;
        for (let at = Number(offset); at < end; at += PIECE)
          yield { offset: BigInt(at), data: own.subarray(at, Math.min(end, at + PIECE)) };
      } catch (error) {
        throw toConnectError(error);
      }
    },
  };
}
