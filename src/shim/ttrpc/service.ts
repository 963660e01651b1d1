// Types that turn a generated service description into a typed client and a typed implementation.
import type { DescMethod, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { GenService, GenServiceMethods } from "@bufbuild/protobuf/codegenv2";

export type Service = GenService<GenServiceMethods>;

/** What a handler may know of the call besides its request. */
export interface CallContext {
  /** The value of a metadata key, if the caller sent one. */
  metadata(name: string): string | undefined;
  /** Aborts when the caller goes away or its time is over. */
  readonly signal: AbortSignal;
}

export interface CallOptions {
  /** Give up after so many milliseconds (DeadlineExceeded), and tell the server so. */
  timeoutMs?: number;
  metadata?: Record<string, string>;
  /** Gives up (Cancelled) when it aborts. The server is not told: ttrpc has no word for it. */
  signal?: AbortSignal;
}

type Input<M> = M extends Pick<DescMethod, "input"> ? M["input"] : never;
type Output<M> = M extends Pick<DescMethod, "output"> ? M["output"] : never;

/** A function per method. An answer may be a plain object. */
export type Implementation<S extends Service> = {
  [K in keyof S["method"]]: (
    request: MessageShape<Input<S["method"][K]>>,
    context: CallContext,
  ) => MessageInitShape<Output<S["method"][K]>> | Promise<MessageInitShape<Output<S["method"][K]>>>;
};

export type Calls<S extends Service> = {
  [K in keyof S["method"]]: (
    request: MessageInitShape<Input<S["method"][K]>>,
    options?: CallOptions,
  ) => Promise<MessageShape<Output<S["method"][K]>>>;
};

export type Client<S extends Service> = Calls<S> & {
  /** Ends the connection; calls under way are rejected with Unavailable. */
  close(): void;
  /** Settles once the connection is gone, for whatever reason. */
  readonly closed: Promise<void>;
};
