// How a service is written here: once, as a table of functions from a request and a Call to an answer. What carries the call (memory.ts, or the
// socket in socket.ts) is a matter of the door. A function may answer a plain object; the door makes a message of it. Errors are Failures.
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodBiDiStreaming,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type DescService,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { failedPrecondition, invalidArgument, unimplemented } from "../lib/errors.ts";
import { active, entering, span } from "../trace/index.ts";
import { checkIdentifier } from "./identifiers.ts";

/** What a call brings beside its request. */
export interface Call {
  /** The metadata `containerd-namespace`; "" where the caller gave none. */
  namespace: string;
  /** The metadata `containerd-lease`: what the call makes belongs to this lease. "" where none. */
  lease: string;
  /** Aborts when the caller went away, or its deadline passed. */
  signal: AbortSignal;
}

type Unary<I extends DescMessage, O extends DescMessage> = (
  request: MessageShape<I>,
  call: Call,
) => MessageInitShape<O> | Promise<MessageInitShape<O>>;
type ServerStreaming<I extends DescMessage, O extends DescMessage> = (
  request: MessageShape<I>,
  call: Call,
) => AsyncIterable<MessageInitShape<O>>;
type BiDi<I extends DescMessage, O extends DescMessage> = (
  requests: AsyncIterable<MessageShape<I>>,
  call: Call,
) => AsyncIterable<MessageInitShape<O>>;

export type MethodImplementation<M extends DescMethod> =
  M extends DescMethodUnary<infer I, infer O>
    ? Unary<I, O>
    : M extends DescMethodServerStreaming<infer I, infer O>
      ? ServerStreaming<I, O>
      : M extends DescMethodBiDiStreaming<infer I, infer O>
        ? BiDi<I, O>
        : never;

export type Implementation<S extends DescService> = { [K in keyof S["method"]]: MethodImplementation<S["method"][K]> };

/** A method as the doors see it. */
export type Handler =
  | { kind: "unary"; method: DescMethod; run: (request: unknown, call: Call) => unknown }
  | { kind: "stream"; method: DescMethod; run: (request: unknown, call: Call) => AsyncIterable<unknown> };

export interface Service {
  desc: DescService;
  handlers: Handler[];
}

export function service<S extends DescService>(desc: S, implementation: Implementation<S>): Service {
  const table = implementation as Record<string, (request: unknown, call: Call) => unknown>;
  return {
    desc,
    handlers: desc.methods.map((method) => {
      const run = table[method.localName]!;
      return method.methodKind === "unary"
        ? { kind: "unary", method, run }
        : { kind: "stream", method, run: run as (request: unknown, call: Call) => AsyncIterable<unknown> };
    }),
  };
}

/** A service of which every method answers that it is not there. */
export function absent(desc: DescService): Service {
  const say = (method: DescMethod) => unimplemented(`${desc.typeName}/${method.name} is not there in jubako`);
  return {
    desc,
    handlers: desc.methods.map((method) =>
      method.methodKind === "unary"
        ? {
            kind: "unary",
            method,
            run: () => {
              throw say(method);
            },
          }
        : {
            kind: "stream",
            method,
            // biome-ignore lint/correctness/useYield: it never gets to one
            run: async function* () {
              throw say(method);
            },
          },
    ),
  };
}

/** The call's namespace, checked; as containerd, FailedPrecondition where there is none. */
export function namespaceOf(call: Call): string {
  if (call.namespace === "") throw failedPrecondition("namespace is required");
  if (call.namespace !== checked) {
    checkIdentifier(call.namespace, "namespace validation");
    checked = call.namespace;
  }
  return call.namespace;
}
let checked = "";

export function required<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw invalidArgument(`${what} is required`);
  return value;
}

/** Runs a unary method; its answer as a message. With a trace active, as a span of the manager. */
export function runUnary(handler: Handler, request: unknown, call: Call): unknown {
  const context = active();
  if (!context) return answer(handler, handler.run(request, call));
  return entering({ ...context, layer: "manager" }, () =>
    span(`${handler.method.parent.name}.${handler.method.name}`, {}, () => answer(handler, handler.run(request, call))),
  );
}

function answer(handler: Handler, result: unknown): unknown {
  if (result instanceof Promise) return result.then((value) => create(handler.method.output, value));
  return create(handler.method.output, result as MessageInitShape<DescMessage>);
}
