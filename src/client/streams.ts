// What streams look like to the caller: JSON messages one by one, and a raw stream to a process.
import type { Buffer } from "node:buffer";
import type { HttpResponse } from "./http.ts";
import type { Connection } from "./socket.ts";

const LINE_LIMIT = 32 << 20;

/** The lines of a body as they come; empty ones are left out. */
export async function* textLines(response: HttpResponse): AsyncGenerator<string> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of response.body) {
    rest += decoder.decode(chunk, { stream: true });
    let start = 0;
    for (;;) {
      const end = rest.indexOf("\n", start);
      if (end < 0) break;
      const line = rest.slice(start, end).trim();
      start = end + 1;
      if (line) yield line;
    }
    rest = rest.slice(start);
    if (rest.length > LINE_LIMIT) throw new Error("a JSON message is larger than 32 MiB");
  }
  const last = rest.trim();
  if (last) yield last;
}

/** JSON values, one a line, as they come. */
export async function* jsonLines<T>(response: HttpResponse): AsyncGenerator<T> {
  for await (const line of textLines(response)) yield JSON.parse(line) as T;
}

/** The raw stream of attach and exec: framed where the process has no terminal. */
export interface RawStream {
  /** Begins to read; call once. `end` comes once, with the error where the connection broke. */
  start(data: (chunk: Buffer) => void, end: (error?: Error) => void): void;
  write(data: Uint8Array | string): boolean;
  drained(): Promise<void>;
  /** Half-close: the process sees the end of its standard input. */
  closeWrite(): void;
  destroy(): void;
  pause(): void;
  resume(): void;
  /** What the engine said the bytes are: application/vnd.docker.raw-stream or …multiplexed-stream. */
  mediaType: string;
}

export function rawStream(response: HttpResponse): RawStream {
  const { connection, early } = response.upgraded as { connection: Connection; early: Buffer };
  return {
    start(data, end) {
      connection.onEnd = end;
      connection.onData = data;
      if (early.length > 0) data(early);
      connection.resume();
    },
    write: (data) => connection.write(data),
    drained: () => connection.drained(),
    closeWrite: () => connection.endWrites(),
    destroy: () => connection.destroy(),
    pause: () => connection.pause(),
    resume: () => connection.resume(),
    mediaType: response.headers["content-type"] ?? "",
  };
}
