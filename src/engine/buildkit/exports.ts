// Where a build's results go: names in the engine's image store, registries, the client's files.
import { Writable } from "node:stream";
import { create } from "@bufbuild/protobuf";
import type { ExportedImage, ExportSink, Status } from "../../build/index.ts";
import { BytesMessageSchema, FileSend } from "../../gen/moby/filesync/v1_pb.ts";
import { failedPrecondition, invalidArgument, messageOf, unknown } from "../../lib/errors.ts";
import { familiarReference, formatReference, nameOf, parseReference, withDefaultTag } from "../../oci/index.ts";
import type { Engine } from "../context.ts";
import type { Lease } from "../images/content.ts";
import { coreOf, keepDangling, setName, tagImage } from "../images/core.ts";
import type { ProgressSink } from "../images/progress.ts";
import type { TargetOptions } from "../images/push.ts";
import { sendLayout } from "./content.ts";
import { exporterFields, sendTree } from "./filesync.ts";
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

export const isTrue = (text: string | undefined): boolean => text !== undefined && /^(1|t|true|)$/i.test(text);

async function* given(messages: AsyncIterable<unknown>): AsyncGenerator<void> {
  for await (const _ of messages) yield;
}

/** A stream into a file of the client. */
function fileOf(session: Session, id: number, metadata: Record<string, string>, signal: AbortSignal): Writable {
  const outgoing = createQueue<{ $typeName: "moby.filesync.v1.BytesMessage"; data: Uint8Array }>(8);
  const answers = session.client(FileSend).diffCopy(outgoing as never, {
    headers: Object.fromEntries(exporterFields(id, metadata)),
    signal: AbortSignal.any([signal, session.closed]),
  });
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
  const { pushTarget } = await import("../images/push.ts");
  const { attrs, target } = image;
  for (const name of image.names) {
    const given = parseReference(name);
    const byDigest = isTrue(attrs["push-by-digest"]);
    if (byDigest && (given.tag !== undefined || given.digest !== undefined))
      throw invalidArgument(`failed to push ${name}: can't push tagged ref ${formatReference(given)} by digest`);
    const reference = byDigest ? given : withDefaultTag(given);
    const insecure = isTrue(attrs["registry.insecure"]) ? { insecure: [...core.registry.insecure, reference.domain] } : {};
    const registry = { ...core.registry, ...insecure };
    const credentials = await credentialsOf(options.session, reference.domain);
    const parts = new Map<string, [number, number]>();
    let progress: (current: number, total: number) => void = () => {};
    const sink: ProgressSink = {
      line: () => {},
      bar(id, _, current, total) {
        parts.set(id, [current, total]);
        const sum = [...parts.values()].reduce(([a, b], [c, d]) => [a + c, b + d], [0, 0]);
        progress(sum[0], sum[1]);
      },
    };
    const shown = `${formatReference(reference)}${byDigest ? "" : `@${target.digest}`}`;
    const push: TargetOptions = {
      reference,
      credentials,
      signal: options.signal,
      part: (what, work) =>
        part(tell, what === "layers" ? "pushing layers" : `pushing manifest for ${shown}`, async (told) => {
          progress = what === "layers" ? told : () => {};
          await work();
        }),
    };
    try {
      await pushTarget({ ...core, registry }, target, push, sink);
    } catch (error) {
      options.signal.throwIfAborted();
      throw unknown(`failed to push ${name}: ${messageOf(error)}`, error);
    }
  }
}

/** Gives an image its names in the store; answers them as the client is told. */
async function nameAll({ engine }: SinkOptions, image: ExportedImage, tell: Tell): Promise<string[]> {
  const core = coreOf(engine);
  const { attrs, target } = image;
  const lease = image.lease as Lease;
  const canonical = isTrue(attrs["name-canonical"]);
  const byDigest = isTrue(attrs["push-by-digest"]);
  for (const name of image.names) {
    const reference = withDefaultTag(parseReference(name));
    const full = formatReference(reference);
    // A name without a tag that is pushed by its digest is the digest's here, too.
    const tagged = !byDigest || parseReference(name).tag !== undefined;
    if (tagged)
      await part(tell, `naming to ${full}`, async () => {
        await tagImage(core, reference, target, lease);
        engine.events.publish("image", "tag", image.configDigest ?? target.digest, { name: familiarReference(reference) });
      });
    if (canonical || !tagged)
      await part(tell, `naming to ${nameOf(reference)}@${target.digest}`, async () => {
        await setName(core, `${nameOf(reference)}@${target.digest}`, target, lease);
      });
  }
  const prefix = attrs["dangling-name-prefix"] ?? "";
  const emptyOnly = isTrue(attrs["danging-name-empty-only"]);
  if (prefix !== "" && (image.names.length === 0 || !emptyOnly)) {
    const name = `${prefix}@${target.digest}`;
    await part(tell, `naming to ${name}`, async () => void (await setName(core, canonicalName(name), target, lease)));
    return [...image.names, name];
  }
  if (image.names.length === 0) await keepDangling(core, target);
  return image.names;
}

/** In full, where it is a reference at all. */
function canonicalName(name: string): string {
  try {
    return formatReference(parseReference(name));
  } catch {
    return name;
  }
}

/** What `type` needs of a sink; other types need nothing. */
export function sinkOf(options: SinkOptions): ExportSink {
  const { session, id, type, attrs, signal } = options;
  const client = (): Session => {
    if (!session) throw failedPrecondition(`the ${type} exporter needs a session of the client`);
    return session;
  };
  return {
    async image(image, tell) {
      const pushed = isTrue(attrs.push);
      if (pushed && image.names.length === 0) throw invalidArgument("tag is needed when pushing to registry");
      const stored = attrs.store === undefined || isTrue(attrs.store);
      const names = stored ? await nameAll(options, image, tell) : image.names;
      if (!pushed) return names;
      await pushAll(options, image, tell);
      // What is here under a name is known by its digest in the registry, too, as after any push.
      const core = coreOf(options.engine);
      for (const name of stored ? image.names : [])
        await setName(core, `${nameOf(parseReference(name))}@${image.target.digest}`, image.target, image.lease as Lease);
      return names;
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
