// Connect's clients over calls of ours, for services that are generated.
import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import type { Connection } from "../http2/index.ts";
import { openCall } from "./calls.ts";
import { GrpcError } from "./status.ts";

function canceled(signal: AbortSignal): ConnectError {
  const late = signal.reason instanceof DOMException && signal.reason.name === "TimeoutError";
  return late ? new ConnectError("the operation timed out", Code.DeadlineExceeded) : new ConnectError("context canceled", Code.Canceled);
}

function failureOf(error: unknown): unknown {
  if (!(error instanceof GrpcError)) return error;
  const failure = new ConnectError(error.rawMessage, error.code as Code);
  failure.details = [...error.details];
  return failure;
}

export function grpcTransport(connection: Connection, closed: AbortSignal): Transport {
  const never = new Headers();
  const begin = (
    method: { name: string; parent: { typeName: string } },
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: Parameters<Transport["unary"]>[3],
  ) => {
    const signals = [closed, ...(signal ? [signal] : []), ...(timeoutMs ? [AbortSignal.timeout(timeoutMs)] : [])];
    const all = AbortSignal.any(signals);
    if (all.aborted) throw canceled(all);
    return { call: openCall(connection, `/${method.parent.typeName}/${method.name}`, [...new Headers(header).entries()], all), all };
  };
  const encode = <I extends DescMessage>(schema: I, message: MessageInitShape<I>) => toBinary(schema, create(schema, message));
  return {
    async unary(method, signal, timeoutMs, header, input) {
      const { call, all } = begin(method, signal, timeoutMs, header);
      call.send(encode(method.input, input));
      call.end();
      let answer: Uint8Array | undefined;
      try {
        for await (const batch of call.batches()) answer ??= batch[0];
      } catch (error) {
        throw all.aborted ? canceled(all) : failureOf(error);
      }
      if (!answer) throw new ConnectError("the call was answered without a message", Code.Internal);
      const message = fromBinary(method.output, answer);
      return { stream: false, service: method.parent, method, header: never, trailer: never, message };
    },
    async stream(method, signal, timeoutMs, header, input) {
      const { call, all } = begin(method, signal, timeoutMs, header);
      const sending = (async () => {
        for await (const message of input) {
          call.send(encode(method.input, message));
          await call.room();
        }
        call.end();
      })();
      sending.catch(call.cancel);
      async function* messages() {
        try {
          for await (const batch of call.batches()) for (const message of batch) yield fromBinary(method.output, message);
        } catch (error) {
          throw all.aborted ? canceled(all) : failureOf(error);
        }
      }
      return { stream: true, service: method.parent, method, header: never, trailer: never, message: messages() };
    },
  };
}
