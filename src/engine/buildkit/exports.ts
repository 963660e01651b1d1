// Where a build's results go: names in the engine's image store, registries, the client's files.
import { Writable } from "node:stream";
import { create } from "@bufbuild/protobuf";
import type { ExportedImage, ExportSink, Status } from "../../build/index.ts";
import { BytesMessageSchema, FileSend } from "../../gen/moby/filesync/v1_pb.ts";
import { failedPrecondition, invalidArgument, unimplemented } from "../../lib/errors.ts";
import { familiarReference, formatReference, nameOf, parseReference, withDefaultTag } from "../../oci/index.ts";
import type { Engine } from "../context.ts";
import { targetOf } from "../images/catalogue.ts";
import type { Lease } from "../images/content.ts";
import { coreOf, keepDangling, setName, tagImage } from "../images/core.ts";
import type { ProgressSink } from "../images/progress.ts";
import { sendLayout } from "./content.ts";
import { exporterHeaders, sendTree } from "./filesync.ts";
import { credentialsOf } from "./host.ts";
import { createQueue } from "./queue.ts";
import type { Session } from "./sessions.ts";

/** grpc-go takes messages of 4 MiB. */
const PIECE = 1 << 20;

export interface SinkOptions {
  engine: Engine;
  session: Session | undefined;
  /** The exporter's number among the build's: the client has one target for each. */
  id: number;
  type: string;
  attrs: Record<string, string>;
  signal: AbortSignal;
}

type Tell = (status: Status) => void;

/** A part of an export that takes time: "naming to …", "pushing …". */
async function part(tell: Tell, name: string, work: (progress: (current: number, total: number) => void) => Promise<void>): Promise<void> {
  let last = { current: 0, total: 0 };
  tell({ id: name, name, ...last, completed: false });
  await work((current, total) => {
    last = { current, total };
    tell({ id: name, name, ...last, completed: false });
  });
  tell({ id: name, name, ...last, completed: true });
}

export const isTrue = (text: string | undefined): boolean => text !== undefined && /^(1|t|true)$/i.test(text);

async function* given(messages: AsyncIterable<unknown>): AsyncGenerator<void> {
  for await (const _ of messages) yield;
}

/** A stream into a file of the client. */
function fileOf(session: Session, id: number, metadata: Record<string, string>, signal: AbortSignal): Writable {
  const outgoing = createQueue<{ $typeName: "moby.filesync.v1.BytesMessage"; data: Uint8Array }>(8);
  const answers = session
    .client(FileSend)
    .diffCopy(outgoing as never, { headers: exporterHeaders(id, metadata), signal: AbortSignal.any([signal, session.closed]) });
  let failure: Error | undefined;
  const done = (async () => {
    for await (const _ of given(answers));
  })().catch((error: Error) => {
    failure = error;
    outgoing.end();
  });
  return new Writable({
    highWaterMark: PIECE,
    async write(chunk: Buffer, _, callback) {
      for (let at = 0; at < chunk.length && !failure; at += PIECE) {
        outgoing.push(create(BytesMessageSchema, { data: chunk.subarray(at, at + PIECE) }) as never);
        await outgoing.room();
      }
      callback(failure);
    },
    async final(callback) {
      outgoing.end();
      // the client answers when it has closed its file
      await done;
      callback(failure);
    },
    destroy(error, callback) {
      outgoing.end();
      callback(error);
    },
  });
}

async function pushAll(options: SinkOptions, image: ExportedImage, tell: Tell): Promise<void> {
  const core = coreOf(options.engine);
  const { push } = await import("../images/push.ts");
  for (const name of image.names) {
    const reference = withDefaultTag(parseReference(name));
    const registry = isTrue(image.attrs["registry.insecure"])
      ? { ...core.registry, insecure: [...core.registry.insecure, reference.domain] }
      : core.registry;
    const credentials = await credentialsOf(options.session, reference.domain);
    await part(tell, `pushing ${formatReference(reference)}`, async (progress) => {
      const parts = new Map<string, [number, number]>();
      const sink: ProgressSink = {
        line: () => {},
        bar(id, _, current, total) {
          parts.set(id, [current, total]);
          const sum = [...parts.values()].reduce(([a, b], [c, d]) => [a + c, b + d], [0, 0]);
          progress(sum[0], sum[1]);
        },
      };
      await push({ ...core, registry }, { reference, platform: undefined, credentials, signal: options.signal }, sink);
    });
  }
}

/** What `type` needs of a sink; other types need nothing. */
export function sinkOf(options: SinkOptions): ExportSink {
  const { engine, session, id, type, attrs, signal } = options;
  const client = (): Session => {
    if (!session) throw failedPrecondition(`the ${type} exporter needs a session of the client`);
    return session;
  };
  return {
    async image(image, tell) {
      const core = coreOf(engine);
      const lease = image.lease as Lease;
      const pushed = isTrue(attrs.push);
      const stored = attrs.store === undefined || isTrue(attrs.store);
      if (isTrue(attrs["push-by-digest"])) throw unimplemented("pushing by digest");
      if (pushed && image.names.length === 0) throw invalidArgument("tag is needed when pushing to registry");
      const undo: (() => Promise<unknown>)[] = [];
      try {
        for (const name of stored || pushed ? image.names : []) {
          const reference = withDefaultTag(parseReference(name));
          const full = formatReference(reference);
          if (stored) {
            await part(tell, `naming to ${full}`, () => tagImage(core, reference, image.target, lease));
            engine.events.publish("image", "tag", image.configDigest ?? image.target.digest, { name: familiarReference(reference) });
          } else {
            // A push reads what it pushes by its name, which is another image's afterwards, or nobody's.
            for (const each of [full, `${nameOf(reference)}@${image.target.digest}`]) {
              const before = await core.catalogue.get(each);
              undo.push(() => (before ? setName(core, each, targetOf(before), lease) : engine.manager.images.delete({ name: each })));
            }
            await setName(core, full, image.target, lease);
          }
        }
        if (stored && image.names.length === 0) await keepDangling(core, image.target);
        if (pushed) await pushAll(options, image, tell);
      } finally {
        for (const each of undo) await each().catch(() => {});
      }
    },
    async stream() {
      const metadata: Record<string, string> = {};
      if (attrs.name) metadata["image.name"] = attrs.name;
      return fileOf(client(), id, metadata, signal);
    },
    async tree(tree, tell) {
      if (type === "local")
        await part(tell, "copying files", (progress) => sendTree(client(), id, tree, (bytes) => progress(bytes, 0), signal));
      else await sendLayout(client(), type === "cache" ? `local:${attrs.dest ?? ""}` : "export", tree, signal);
    },
  };
}
