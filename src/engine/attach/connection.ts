// A hijacked connection as a client of a hub: framing of the output, detach keys in the input. Shared by attach and exec.
import type { Duplex } from "node:stream";
import type { ContainerStreams } from "../io/streams.ts";
import type { Stream } from "../logs/driver.ts";
import { escapeFilter } from "./detach.ts";

/** "application/vnd.docker.raw-stream", or since API 1.42 its own type for framed streams. */
export function streamType(version: number, terminal: boolean): string {
  return !terminal && version >= 42 ? "application/vnd.docker.multiplexed-stream" : "application/vnd.docker.raw-stream";
}

/** The bytes behind their 8-byte header: stream, three zeros, length, big-endian. */
export function frame(stream: Stream, bytes: Uint8Array): Buffer {
  const out = Buffer.allocUnsafe(8 + bytes.length);
  out.writeUInt32BE(stream === "stdout" ? 0x01000000 : 0x02000000, 0);
  out.writeUInt32BE(bytes.length, 4);
  out.set(bytes, 8);
  return out;
}

export interface Connection {
  duplex: Duplex;
  streams: ContainerStreams;
  /** Output goes behind headers that name its stream (see `frame`). */
  framed: boolean;
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  /** The end of the client's input ends the process' too; otherwise it only ends this client. */
  closesStdin: boolean;
  /** Bytes of the detach sequence; undefined: there is none. */
  detachKeys: Uint8Array | undefined;
  detached(): void;
  /** Output to send before what comes live from now on. */
  replay?: AsyncIterable<Buffer> | undefined;
}

/** Connects; resolves when the client is gone, detached, or the output ended and was handed to the connection. */
export function connectClient(connection: Connection): Promise<void> {
  const { duplex, streams, framed } = connection;
  const done = Promise.withResolvers<void>();
  let held: Buffer[] | undefined = connection.replay ? [] : undefined;
  let heldBytes = 0;
  let heldEnd = false;
  let heldDrain: (() => void)[] = [];
  let over = false;

  const remove = streams.hub.add({
    stdout: connection.stdout,
    stderr: connection.stderr,
    write(stream, bytes) {
      const out = framed ? frame(stream, bytes) : bytes;
      if (held) {
        held.push(out);
        heldBytes += out.length;
      } else duplex.write(out);
    },
    pending: () => duplex.writableLength + heldBytes,
    onDrain(callback) {
      if (held) heldDrain.push(callback);
      else duplex.once("drain", callback);
    },
    end() {
      if (held) heldEnd = true;
      else finish();
    },
  });

  function leave(): void {
    over = true;
    remove();
    // What was typed for a start that never came is not for the next one.
    if (!streams.live && streams.hub.clients === 0) streams.stdin.forget();
  }

  function finish(): void {
    if (over) return;
    leave();
    duplex.end();
    // The client may send on for ever; nobody reads it.
    duplex.removeAllListeners("data");
    duplex.resume();
    done.resolve();
  }

  function gone(): void {
    if (over) return;
    leave();
    duplex.destroy();
    done.resolve();
  }

  async function replay(lines: AsyncIterable<Buffer>): Promise<void> {
    try {
      for await (const bytes of lines) {
        if (over) return;
        if (!duplex.write(bytes))
          await new Promise<void>((resolve) => {
            duplex.once("drain", resolve);
            duplex.once("close", resolve);
          });
      }
    } finally {
      const rest = held ?? [];
      held = undefined;
      heldBytes = 0;
      if (!over) for (const bytes of rest) duplex.write(bytes);
      for (const callback of heldDrain) callback();
      heldDrain = [];
      if (heldEnd) finish();
    }
  }

  duplex.on("close", gone);
  duplex.on("error", gone);
  if (connection.stdin) {
    const filter = connection.detachKeys ? escapeFilter(connection.detachKeys) : undefined;
    duplex.on("data", (chunk: Buffer) => {
      const { bytes, detach } = filter ? filter(chunk) : { bytes: chunk, detach: false };
      if (bytes.length > 0 && !streams.stdin.write(bytes)) {
        duplex.pause();
        streams.stdin.onDrain(() => duplex.resume());
      }
      if (!detach) return;
      connection.detached();
      finish();
    });
    duplex.on("end", () => {
      if (connection.closesStdin) streams.stdin.end();
      else finish();
    });
  } else duplex.resume();
  if (connection.replay) replay(connection.replay).catch(gone);
  return done.promise;
}
