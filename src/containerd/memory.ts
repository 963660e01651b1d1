// The door inside the process: a Connect transport that calls the services' functions. Messages are passed as they are, nothing is serialised;
// a service never keeps or changes what it was given, and answers objects of its own.
import { create, type DescMessage, type DescMethod, type MessageInitShape } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import { Failure, unimplemented } from "../lib/errors.ts";
import { type Call, type Handler, runUnary, type Service } from "./service.ts";

const never = new AbortController().signal;
const none = new Headers();

export function memoryTransport(services: Service[], namespace: string): Transport {
  const handlers = new Map<DescMethod, Handler>();
  for (const { handlers: list } of services) for (const handler of list) handlers.set(handler.method, handler);

  const find = <K extends Handler["kind"]>(method: DescMethod, kind: K): Extract<Handler, { kind: K }> => {
    const handler = handlers.get(method);
    if (handler?.kind !== kind) throw unimplemented(`unknown service ${method.parent.typeName}`);
    return handler as Extract<Handler, { kind: K }>;
  };
  const plain: Call = { namespace, lease: "", signal: never };
  const callOf = (signal: AbortSignal | undefined, timeoutMs: number | undefined, header: Parameters<Transport["unary"]>[3]): Call => {
    if (!signal && !timeoutMs && !header) return plain;
    const headers = header ? new Headers(header) : none;
    const deadline = timeoutMs ? AbortSignal.timeout(timeoutMs) : undefined;
    return {
      namespace: headers.get("containerd-namespace") ?? namespace,
      lease: headers.get("containerd-lease") ?? "",
      signal: signal && deadline ? AbortSignal.any([signal, deadline]) : (signal ?? deadline ?? never),
    };
  };

  return {
    async unary(method, signal, timeoutMs, header, input: unknown) {
      const handler = find(method, "unary");
      const call = callOf(signal, timeoutMs, header);
      const running = runUnary(handler, create(method.input as DescMessage, input as MessageInitShape<DescMessage>), call);
      const message = running instanceof Promise ? await abortable(running, call.signal) : running;
      return { stream: false, service: method.parent, method, header: none, trailer: none, message: message as never };
    },
    async stream(method, signal, timeoutMs, header, input: unknown) {
      const handler = find(method, "stream");
      const call = callOf(signal, timeoutMs, header);
      const inputs = messages(method.input, input as AsyncIterable<MessageInitShape<DescMessage>>);
      const request = method.methodKind === "server_streaming" ? await first(inputs) : inputs;
      const message = messages(method.output, handler.run(request, call) as AsyncIterable<MessageInitShape<DescMessage>>);
      return { stream: true, service: method.parent, method, header: none, trailer: none, message: message as never };
    },
  };
}

async function* messages(schema: DescMessage, values: AsyncIterable<MessageInitShape<DescMessage>>) {
  for await (const value of values) yield create(schema, value);
}

async function first<T>(values: AsyncIterable<T>): Promise<T | undefined> {
  for await (const value of values) return value;
  return undefined;
}

/** The caller is answered when it gives up, even where the service goes on. */
function abortable<T>(running: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal === never) return running;
  return new Promise((resolve, reject) => {
    const abort = () => {
      const late = signal.reason instanceof DOMException && signal.reason.name === "TimeoutError";
      reject(late ? new Failure("DeadlineExceeded", "context deadline exceeded") : new Failure("Cancelled", "context canceled"));
    };
    if (signal.aborted) {
      running.catch(() => {});
      abort();
      return;
    }
    signal.addEventListener("abort", abort, { once: true });
    running.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
