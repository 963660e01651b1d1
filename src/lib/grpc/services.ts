// Handlers of calls from the implementation of a generated service.
import type { DescMessage, DescMethod, DescService, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { Handler, ServerCall } from "./server.ts";

export interface CallContext {
  header(name: string): string | undefined;
  list(name: string): string[];
  /** Aborts when the caller is gone, or its patience is over. */
  signal: AbortSignal;
}

type Input<M extends DescMethod> = M["input"] extends infer I extends DescMessage ? MessageShape<I> : never;
type Output<M extends DescMethod> = M["output"] extends infer O extends DescMessage ? MessageInitShape<O> : never;
type Implemented<M extends DescMethod> = M["methodKind"] extends "unary"
  ? (request: Input<M>, context: CallContext) => Promise<Output<M>>
  : M["methodKind"] extends "server_streaming"
    ? (request: Input<M>, context: CallContext) => AsyncIterable<Output<M>>
    : (requests: AsyncIterable<Input<M>>, context: CallContext) => AsyncIterable<Output<M>>;

/** What is left out is Unimplemented. */
export type Service<S extends DescService> = { [P in keyof S["method"]]?: Implemented<S["method"][P]> };

async function* decoded(method: DescMethod, call: ServerCall): AsyncGenerator<unknown> {
  for await (const batch of call.batches()) for (const message of batch) yield fromBinary(method.input, message);
}

export function handlersOf<S extends DescService>(service: S, implementation: Service<S>): Map<string, Handler> {
  const handlers = new Map<string, Handler>();
  for (const method of service.methods) {
    const found = (implementation as Record<string, ((input: unknown, context: CallContext) => unknown) | undefined>)[method.localName];
    if (!found) continue;
    const encode = (message: unknown) => toBinary(method.output, create(method.output, message as MessageInitShape<DescMessage>));
    handlers.set(`/${service.typeName}/${method.name}`, async (call) => {
      const streams = method.methodKind === "bidi_streaming" || method.methodKind === "client_streaming";
      const input = streams ? decoded(method, call) : fromBinary(method.input, await call.message());
      const answer = found(input, call);
      if (method.methodKind === "unary") {
        call.send(encode(await answer));
        return;
      }
      for await (const message of answer as AsyncIterable<unknown>) {
        call.send(encode(message));
        await call.room();
        if (call.signal.aborted) return;
      }
    });
  }
  return handlers;
}
