// The event exchange: whatever happens is published to a topic and reaches every subscriber in the order of publishing. Nothing is stored; a
// subscriber that does not read is cut off once its queue is long, and told so, instead of growing without bound.
import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import * as eventTypes from "../gen/containerd/events_pb.ts";
import { Events } from "../gen/containerd/services/events/v1_pb.ts";
import * as imageTypes from "../gen/containerd/services/images/v1_pb.ts";
import { type Envelope, EnvelopeSchema } from "../gen/containerd/types_pb.ts";
import { Failure, invalidArgument } from "../lib/errors.ts";
import { microseconds, timestamp } from "./database.ts";
import { type Field, parseFilters } from "./filters.ts";
import { namespaceOf, required, type Service, service } from "./service.ts";

const QUEUE_LIMIT = 20_000;

export interface Exchange {
  publish<D extends DescMessage>(namespace: string, topic: string, schema: D, event: MessageInitShape<D>): void;
  forward(envelope: Envelope): void;
  /** Calls back for each envelope, synchronously; returns the way to stop. */
  listen(callback: (envelope: Envelope) => void): () => void;
}

export function createExchange(): Exchange {
  const listeners = new Set<(envelope: Envelope) => void>();
  const forward = (envelope: Envelope): void => {
    for (const listener of listeners) listener(envelope);
  };
  return {
    publish(namespace, topic, schema, event) {
      if (listeners.size === 0) return;
      const value = toBinary(schema, create(schema, event));
      forward(
        create(EnvelopeSchema, { timestamp: timestamp(microseconds()), namespace, topic, event: { typeUrl: schema.typeName, value } }),
      );
    },
    forward,
    listen(callback) {
      listeners.add(callback);
      return () => listeners.delete(callback);
    },
  };
}

const schemas = new Map<string, DescMessage>(
  [...Object.values(eventTypes), ...Object.values(imageTypes)]
    .filter((value) => "kind" in value && value.kind === "message")
    .map((value) => [(value as DescMessage).typeName, value as DescMessage]),
);

/** The fields that subscribers filter by: topic, namespace, and event.… inside the message (container_id, for instance). */
export function envelopeField(envelope: Envelope): Field {
  return ([head, ...rest]) => {
    if (head === "topic") return envelope.topic;
    if (head === "namespace") return envelope.namespace;
    if (head !== "event" || !envelope.event || rest.length === 0) return undefined;
    return eventField(envelope.event, rest);
  };
}

function eventField(event: Any, [name, ...rest]: string[]): string | undefined {
  const schema = schemas.get(event.typeUrl.slice(event.typeUrl.lastIndexOf("/") + 1));
  const field = schema?.fields.find((f) => f.name === name);
  if (!schema || !field) return undefined;
  const value = (fromBinary(schema, event.value) as unknown as Record<string, unknown>)[field.localName];
  if (field.fieldKind === "map") return (value as Record<string, string>)[rest.join(".")];
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean" ? String(value) : undefined;
}

function checkTopic(topic: string): void {
  if (topic === "") throw invalidArgument("envelope: topic must not be empty");
  if (topic[0] !== "/") throw invalidArgument(`must start with '/': topic "${topic}"`);
  if (topic.length === 1) throw invalidArgument(`must have at least one component: topic "${topic}"`);
}

export function eventsService(exchange: Exchange, closing: AbortSignal): Service {
  return service(Events, {
    publish(request, call) {
      const namespace = namespaceOf(call);
      checkTopic(request.topic);
      exchange.forward(
        create(EnvelopeSchema, {
          timestamp: timestamp(microseconds()),
          namespace,
          topic: request.topic,
          event: required(request.event, "event"),
        }),
      );
      return {};
    },
    forward(request) {
      const envelope = required(request.envelope, "envelope");
      checkTopic(envelope.topic);
      if (envelope.namespace === "") throw invalidArgument("envelope: namespace is required");
      exchange.forward(envelope);
      return {};
    },
    subscribe(request, call) {
      const filter = parseFilters(request.filters);
      const queue: Envelope[] = [];
      let wake = () => {};
      // listening begins with the call, not with the first read
      const stop = exchange.listen((envelope) => {
        if (queue.length > QUEUE_LIMIT || !filter(envelopeField(envelope))) return;
        queue.push(envelope);
        wake();
      });
      const ended = () => call.signal.aborted || closing.aborted;
      const end = () => {
        if (ended()) stop();
        wake();
      };
      call.signal.addEventListener("abort", end, { once: true });
      closing.addEventListener("abort", end, { once: true });
      return (async function* () {
        try {
          while (!ended()) {
            if (queue.length > QUEUE_LIMIT) throw new Failure("ResourceExhausted", "the subscriber reads events too slowly");
            const envelope = queue.shift();
            if (envelope) yield envelope;
            else
              await new Promise<void>((resolve) => {
                wake = resolve;
                if (queue.length > 0 || ended()) resolve();
              });
          }
        } finally {
          stop();
          call.signal.removeEventListener("abort", end);
          closing.removeEventListener("abort", end);
        }
      })();
    },
  });
}
