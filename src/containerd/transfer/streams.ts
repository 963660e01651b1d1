// The streaming service: a client opens a stream under an id of its own and names that id in a transfer, for progress, archives and credentials. A
// stream carries messages both ways; bulk data is paced by the reader's window updates.
import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema, EmptySchema } from "@bufbuild/protobuf/wkt";
import { StreamInitSchema, Streaming } from "../../gen/containerd/services/streaming/v1_pb.ts";
import { DataSchema, WindowUpdateSchema } from "../../gen/containerd/types/transfer_pb.ts";
import { alreadyExists, invalidArgument, notFound } from "../../lib/errors.ts";
import { namespaceOf, type Service, service } from "../service.ts";

export interface Stream {
  send<D extends DescMessage>(schema: D, message: MessageInitShape<D>): void;
  /** What the client sends; ends when it closes its side. One reader. */
  received: AsyncIterator<Any>;
  /** Ends the call. */
  close(): void;
}

export interface Streams {
  /** The stream that the client opened under this id; NotFound where there is none. */
  get(namespace: string, id: string): Stream;
}

export function anyOf<D extends DescMessage>(schema: D, message: MessageInitShape<D>): Any {
  return create(AnySchema, { typeUrl: schema.typeName, value: toBinary(schema, create(schema, message)) });
}

export const isType = (any: Any, schema: DescMessage): boolean => any.typeUrl.slice(any.typeUrl.lastIndexOf("/") + 1) === schema.typeName;

export function createStreams(): { streams: Streams; service: Service } {
  const open = new Map<string, Stream>();
  const key = (namespace: string, id: string) => `${namespace}\0${id}`;
  const streams: Streams = {
    get(namespace, id) {
      const stream = open.get(key(namespace, id));
      if (!stream) throw notFound(`stream "${id}"`);
      return stream;
    },
  };
  return {
    streams,
    service: service(Streaming, {
      async *stream(requests, call) {
        const namespace = namespaceOf(call);
        const received = requests[Symbol.asyncIterator]();
        const first = await received.next();
        if (first.done || !isType(first.value, StreamInitSchema)) throw invalidArgument("a stream begins with StreamInit");
        const { id } = fromBinary(StreamInitSchema, first.value.value);
        const name = key(namespace, id);
        if (open.has(name)) throw alreadyExists(`stream "${id}"`);
        const queue: Any[] = [];
        let closed = false;
        let wake = () => {};
        const end = () => {
          closed = true;
          wake();
        };
        call.signal.addEventListener("abort", end, { once: true });
        open.set(name, {
          send(schema, message) {
            queue.push(anyOf(schema, message));
            wake();
          },
          received,
          close: end,
        });
        try {
          yield anyOf(EmptySchema, {});
          for (;;) {
            const next = queue.shift();
            if (next) yield next;
            else if (closed) return;
            else
              await new Promise<void>((resolve) => {
                wake = resolve;
              });
          }
        } finally {
          open.delete(name);
          call.signal.removeEventListener("abort", end);
        }
      },
    }),
  };
}

const WINDOW = 1 << 20;

/** The bytes a client sends on a stream. */
export async function* readData(stream: Stream): AsyncIterable<Uint8Array> {
  let window = 0;
  for (;;) {
    if (window < WINDOW / 2) {
      stream.send(WindowUpdateSchema, { update: WINDOW });
      window += WINDOW;
    }
    const { value, done } = await stream.received.next();
    if (done) break;
    if (!isType(value, DataSchema)) continue;
    const { data } = fromBinary(DataSchema, value.value);
    window -= data.length;
    yield data;
  }
  stream.close();
}

const PIECE = 256 << 10;

/** Sends bytes to a client, as fast as it reads. */
export async function sendData(stream: Stream, bytes: AsyncIterable<Uint8Array>): Promise<void> {
  let window = 0;
  for await (const chunk of bytes) {
    for (let at = 0; at < chunk.length; ) {
      while (window <= 0) {
        const { value, done } = await stream.received.next();
        if (done) return;
        if (isType(value, WindowUpdateSchema)) window += fromBinary(WindowUpdateSchema, value.value).update;
      }
      const data = chunk.subarray(at, at + Math.min(PIECE, window));
      stream.send(DataSchema, { data });
      window -= data.length;
      at += data.length;
    }
  }
  stream.close();
}
