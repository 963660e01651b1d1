// fsutil's file transfer, both ways: the client's files to us (FileSync.DiffCopy: only what changed is sent), and a tree of ours to the client
// (FileSend.DiffCopy). Descriptions (STAT) come first, an empty one ends them; the receiver asks for contents by number (REQ), gets DATA with an empty one at the
// end, and says FIN when it has all.
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import type { FileInfo, FileTree } from "../../build/index.ts";
import { type Packet, PacketSchema, PacketType, type Stat, StatSchema } from "../../gen/fsutil/types_pb.ts";
import { failedPrecondition, messageOf, unknown } from "../../lib/errors.ts";
import { toGoMode } from "../../lib/go-mode.ts";
import type { Fields } from "../../lib/http2/index.ts";
import { listFields } from "./connection.ts";
import type { Session } from "./sessions.ts";
import { createTreeWriter, type TreeIndex } from "./tree-writer.ts";

type Init = MessageInitShape<typeof PacketSchema>;
const { PACKET_STAT, PACKET_REQ, PACKET_DATA, PACKET_FIN, PACKET_ERR } = PacketType;
const PIECE = 128 << 10;
const BREATH_MS = 10;

export interface ReceiveRequest {
  name: string;
  includePatterns: readonly string[];
  excludePatterns: readonly string[];
  followPaths: readonly string[];
  /** Files described as before are not sent again. */
  trust: boolean;
}

/**
 * Makes `root` what the client's directory is; `before` is what it holds now, `changing` is called before anything is changed. Answers what it holds then, undefined
 * where that is what it held; where it fails that is not known.
 */
export async function receiveFiles(
  session: Session,
  request: ReceiveRequest,
  root: number,
  before: TreeIndex,
  changing: () => void,
  progress: (bytes: number) => void,
  signal: AbortSignal,
): Promise<TreeIndex | undefined> {
  if (!session.supports("/moby.filesync.v1.FileSync/DiffCopy")) throw failedPrecondition("no local sources enabled");
  const call = session.bulk(
    "/moby.filesync.v1.FileSync/DiffCopy",
    listFields({
      "include-patterns": request.includePatterns,
      "exclude-patterns": request.excludePatterns,
      followpaths: request.followPaths,
      "dir-name": [request.name],
    }),
    signal,
  );
  const send = (packet: Init) => call.send(toBinary(PacketSchema, create(PacketSchema, packet)));
  const writer = createTreeWriter(root, before, request.trust, changing);
  let bytes = 0;
  let sent = 0;
  let described = false;
  let result: TreeIndex | undefined;
  const whole = Promise.withResolvers<TreeIndex | undefined>();
  let last = performance.now();
  const finishIfAll = () => {
    if (!described || writer.pending > 0 || result) return;
    result = writer.finish();
    send({ type: PACKET_FIN });
    progress(bytes);
    whole.resolve(writer.changed ? result : undefined);
  };
  /** True at the end. */
  const take = (packet: Packet): boolean => {
    switch (packet.type) {
      case PACKET_STAT:
        if (!packet.stat) {
          described = true;
          writer.described();
          finishIfAll();
          break;
        }
        if (described) throw unknown("the client described files after the last one");
        bytes += packet.stat.path.length + 32;
        if (writer.put(packet.stat)) send({ type: PACKET_REQ, ID: sent });
        sent++;
        break;
      case PACKET_DATA:
        bytes += packet.data.length;
        writer.data(packet.ID, packet.data);
        finishIfAll();
        break;
      case PACKET_ERR:
        throw unknown(`error from sender: ${Buffer.from(packet.data).toString()}`);
      case PACKET_FIN:
        if (!result) throw unknown("the client ended before all files were sent");
        return true;
      default:
        throw unknown(`the client sent a packet of the unknown kind ${packet.type}`);
    }
    return false;
  };
  const reading = (async () => {
    for await (const batch of call.batches()) {
      for (const message of batch) if (take(fromBinary(PacketSchema, message))) call.end();
      if (!result) progress(bytes);
      // Writing is synchronous: others get their turn.
      if (performance.now() - last > BREATH_MS) {
        await new Promise((resolve) => setImmediate(resolve));
        last = performance.now();
      }
    }
    throw unknown("the client's files ended early");
  })();
  // Its farewell need not be waited for.
  reading.then(undefined, whole.reject).finally(() => {
    writer.close();
    call.cancel();
  });
  return whole.promise;
}

/** A file as fsutil's messages describe it. */
export function statOf(info: FileInfo): Stat {
  return create(StatSchema, {
    path: info.path,
    mode: toGoMode(info.mode),
    uid: info.uid,
    gid: info.gid,
    size: BigInt(info.size),
    modTime: info.mtime,
    linkname: info.linkname,
    devmajor: BigInt(info.devmajor),
    devminor: BigInt(info.devminor),
    xattrs: info.xattrs,
  });
}

const describe = (info: FileInfo): Init => ({ type: PACKET_STAT, stat: statOf(info) });

/** Which of the client's outputs is meant, and what it should know of it. */
export function exporterFields(id: number, metadata: Record<string, string> = {}): Fields {
  return [
    ["buildkit-attachable-exporter-id", String(id)],
    ...Object.entries(metadata).map(([name, value]) => [`exporter-md-${name}`, value] as const),
  ];
}

/** Sends a tree to the client's output number `id`. */
export async function sendTree(
  session: Session,
  id: number,
  tree: FileTree,
  progress: (bytes: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const method = "/moby.filesync.v1.FileSend/DiffCopy";
  if (!session.supports(method)) throw failedPrecondition(`method ${method} not supported by the client`);
  const ending = new AbortController();
  // The messages of this method are declared as bytes; for a directory they are packets.
  const call = session.bulk(method, exporterFields(id), AbortSignal.any([signal, ending.signal]));
  const send = (packet: Init) => call.send(toBinary(PacketSchema, create(PacketSchema, packet)));
  const names: (string | undefined)[] = [];
  let bytes = 0;
  let broken: unknown;
  const fail = (error: unknown) => {
    broken ??= error;
    send({ type: PACKET_ERR, data: Buffer.from(messageOf(error)) });
    call.end();
    ending.abort(error);
  };
  const describing = (async () => {
    for await (const info of tree.entries()) {
      const regular = (info.mode & 0o170000) === 0o100000 && info.linkname === "";
      names.push(regular ? info.path : undefined);
      send(describe(info));
      await call.room();
    }
    send({ type: PACKET_STAT });
  })();
  describing.catch(fail);
  let sending: Promise<void> = Promise.resolve();
  const sendOne = async (number: number, path: string) => {
    if (ending.signal.aborted) return;
    for await (const chunk of await tree.open(path)) {
      const data = chunk as Buffer;
      for (let at = 0; at < data.length; at += PIECE) {
        send({ type: PACKET_DATA, ID: number, data: data.subarray(at, at + PIECE) });
        await call.room();
      }
      bytes += data.length;
      progress(bytes);
    }
    send({ type: PACKET_DATA, ID: number });
  };
  try {
    for await (const batch of call.batches()) {
      for (const message of batch) {
        const packet = fromBinary(PacketSchema, message);
        if (packet.type === PACKET_ERR) throw unknown(`error from receiver: ${Buffer.from(packet.data).toString()}`);
        if (packet.type === PACKET_REQ) {
          const path = names[packet.ID];
          if (path === undefined) throw unknown(`invalid file id ${packet.ID}`);
          names[packet.ID] = undefined;
          sending = sending.then(() => sendOne(packet.ID, path));
          sending.catch(fail);
        } else if (packet.type === PACKET_FIN) {
          await sending;
          send({ type: PACKET_FIN });
          call.end();
        }
      }
    }
    await describing;
  } catch (error) {
    signal.throwIfAborted();
    throw broken ?? error;
  } finally {
    call.cancel();
    await Promise.allSettled([describing, sending]);
  }
}
