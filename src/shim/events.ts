// Events on their way to the manager: in order, one at a time, kept in a bounded queue and tried again while the manager is away.
import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Events } from "../gen/containerd/services/events/ttrpc/v1_pb.ts";
import { isKind } from "../lib/errors.ts";
import { type Client, createTtrpcClient } from "./ttrpc/index.ts";

export interface Publisher {
  /** Queues an event; never waits, never throws. The oldest is dropped where the queue is full. */
  publish<D extends DescMessage>(topic: string, schema: D, event: MessageInitShape<D>): void;
  /** Resolves when the queue is empty, or after `ms`. */
  flush(ms: number): Promise<void>;
  close(): void;
}

const QUEUE = 8192;
const FIRST_RETRY_MS = 50;
const LAST_RETRY_MS = 5000;
const CALL_MS = 5000;

interface Queued {
  topic: string;
  typeUrl: string;
  value: Uint8Array;
  at: number;
}

export function timestamp(ms: number): { seconds: bigint; nanos: number } {
  const seconds = Math.floor(ms / 1000);
  return { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1000) * 1e6) };
}

/** Publishes to the Events service at `address`; without one, events go nowhere. */
export function publisher(address: string | undefined, namespace: string): Publisher {
  const queue: Queued[] = [];
  let client: Client<typeof Events> | undefined;
  let sending = false;
  let retry: ReturnType<typeof setTimeout> | undefined;
  let delay = FIRST_RETRY_MS;
  let closed = false;
  const idle: (() => void)[] = [];

  const send = async (): Promise<void> => {
    if (sending || closed) return;
    sending = true;
    while (queue.length > 0 && !closed) {
      const event = queue[0]!;
      try {
        client ??= createTtrpcClient(Events, address!);
        await client.forward(
          {
            envelope: {
              timestamp: timestamp(event.at),
              namespace,
              topic: event.topic,
              event: { typeUrl: event.typeUrl, value: event.value },
            },
          },
          { timeoutMs: CALL_MS, metadata: { "containerd-namespace-ttrpc": namespace } },
        );
        delay = FIRST_RETRY_MS;
      } catch (error) {
        if (isKind(error, "Unavailable") || isKind(error, "DeadlineExceeded")) {
          client?.close();
          client = undefined;
          retry = setTimeout(() => void send(), delay);
          retry.unref();
          delay = Math.min(delay * 2, LAST_RETRY_MS);
          break;
        }
        // The manager is there and refuses this one: keeping it would block all that follow.
      }
      queue.shift();
    }
    sending = false;
    if (queue.length === 0) for (const resolve of idle.splice(0)) resolve();
  };

  return {
    publish(topic, schema, event) {
      if (!address || closed) return;
      const value = toBinary<DescMessage>(schema, create<DescMessage>(schema, event as MessageInitShape<DescMessage>));
      if (queue.length >= QUEUE) queue.splice(sending ? 1 : 0, 1);
      queue.push({ topic, typeUrl: schema.typeName, value, at: Date.now() });
      // Behind the answer of the call that it tells of: who waits for that should not wait for the telling.
      if (!sending) setImmediate(() => void send());
    },
    flush(ms) {
      if (queue.length === 0) return Promise.resolve();
      return new Promise((resolve) => {
        const timer = setTimeout(resolve, ms);
        idle.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    },
    close() {
      closed = true;
      if (retry) clearTimeout(retry);
      client?.close();
    },
  };
}
