// A connection to a message bus, or to a peer that speaks D-Bus itself (systemd's private socket). Who we are the other side sees by the socket's
// credentials (SASL EXTERNAL without a name of our own choosing: inside a user namespace we would not know the right one).
//
//   const bus = await connectBus("unix:path=/run/dbus/system_bus_socket")
//   const [id] = await bus.call({ destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: …, member: "GetId" })
//   bus.close()
import { Failure, unavailable } from "../../lib/errors.ts";
import { textOf, utf8 } from "../../linux/index.ts";
import { connectStream, type Stream } from "./stream.ts";
import {
  decodeMessage,
  ERROR,
  encodeMessage,
  METHOD_CALL,
  METHOD_RETURN,
  type Message,
  messageLength,
  SIGNAL,
  type Value,
} from "./wire.ts";

export interface Call {
  destination?: string;
  path: string;
  interface: string;
  member: string;
  signature?: string;
  args?: readonly Value[];
  /** Milliseconds; 25 seconds (libdbus') unless told. */
  timeout?: number;
}

export interface Bus {
  /** Rejects where the other side refuses; refusalOf() then tells the error's name. */
  call(call: Call): Promise<readonly Value[]>;
  /** Ends with the returned function. A bus passes on only what a match rule (AddMatch) asks for. */
  onSignal(interfaceName: string, member: string, handler: (message: Message) => void): () => void;
  close(): void;
}

/** The name of the error that the other side answered with. */
export function refusalOf(error: unknown): string | undefined {
  return (error as { errorName?: string } | undefined)?.errorName;
}

const DEFAULT_TIMEOUT = 25_000;
const CONNECT_TIMEOUT = 5_000;
const MAX_LINE = 512;
const LF = 10;

/** The sockets of an address list ("unix:path=/a;unix:abstract=b"), in the order in which they are to be tried. */
export function socketsOf(addresses: string): string[] {
  const unescaped = (text: string) => text.replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return addresses.split(";").flatMap((address) => {
    const [transport, list = ""] = address.split(":", 2);
    if (transport !== "unix") return [];
    const pairs = new Map(list.split(",").map((pair) => [pair.split("=", 1)[0]!, pair.slice(pair.indexOf("=") + 1)]));
    const path = pairs.get("path");
    const abstract = pairs.get("abstract");
    if (path !== undefined) return [unescaped(path)];
    return abstract !== undefined ? [`\0${unescaped(abstract)}`] : [];
  });
}

/** `direct`: the other side is no bus, and gives no name. */
export async function connectBus(addresses: string, { direct = false } = {}): Promise<Bus> {
  let last: unknown = unavailable(`no unix socket in the D-Bus address ${JSON.stringify(addresses)}`);
  for (const path of socketsOf(addresses)) {
    try {
      const bus = await authenticated(path);
      try {
        if (!direct)
          await bus.call({
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
          });
        return bus;
      } catch (error) {
        bus.close();
        throw error;
      }
    } catch (error) {
      last = error;
    }
  }
  throw last;
}

/** Says who we are; what comes after the last line is messages. */
async function authenticated(path: string): Promise<Bus> {
  const refused = (why: string) => unavailable(`D-Bus at ${path.replace("\0", "@")}: ${why}`);
  const deadline = Date.now() + CONNECT_TIMEOUT;
  const stream = await connectStream(path, CONNECT_TIMEOUT).catch((error: Error) => Promise.reject(refused(error.message)));
  return new Promise((resolve, reject) => {
    const fail = (why: string) => {
      clearTimeout(timer);
      stream.close();
      reject(refused(why));
    };
    const timer = setTimeout(() => fail("no answer"), deadline - Date.now());
    const received = inbox();
    stream.onEnd = (error) => fail(error?.message ?? "it ended the connection");
    stream.onData = (bytes) => {
      received.add(bytes);
      for (;;) {
        const end = received.bytes.indexOf(LF);
        if (end < 0) return received.bytes.length > MAX_LINE ? fail("it does not speak D-Bus") : undefined;
        const line = textOf(received.bytes.subarray(0, end));
        received.skip(end + 1);
        if (/^DATA\b/.test(line)) continue;
        if (/^OK\b/.test(line)) {
          clearTimeout(timer);
          return resolve(serve(stream, received));
        }
        return fail(`authentication refused: ${line.trimEnd().slice(0, 100)}`);
      }
    };
    // In one piece, as systemd's own clients do: where its manager reads BEGIN together with a message behind it, it forgets the message until another comes.
    stream.send(utf8("\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"));
  });
}

interface Inbox {
  /** What came and was not skipped; as it is until more is added. */
  bytes: Uint8Array;
  add(bytes: Uint8Array): void;
  skip(count: number): void;
}

function inbox(): Inbox {
  let room = new Uint8Array(4096);
  let start = 0;
  const self: Inbox = {
    bytes: room.subarray(0, 0),
    add(bytes) {
      const length = self.bytes.length + bytes.length;
      if (start + length > room.length) {
        const old = self.bytes;
        if (length > room.length / 2) room = new Uint8Array(2 * length);
        room.set(old);
        start = 0;
      }
      room.set(bytes, start + self.bytes.length);
      self.bytes = room.subarray(start, start + length);
    },
    skip(count) {
      start += count;
      self.bytes = self.bytes.subarray(count);
    },
  };
  return self;
}

interface Waiting {
  resolve(body: readonly Value[]): void;
  reject(error: Error): void;
}

function serve(stream: Stream, received: Inbox): Bus {
  let serial = 0;
  let ended: Error | undefined;
  const waiting = new Map<number, Waiting>();
  const handlers = new Set<{ interface: string; member: string; handler: (message: Message) => void }>();

  const end = (error: Error) => {
    if (ended) return;
    ended = error;
    stream.close();
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  };

  const take = (message: Message) => {
    if (message.type === SIGNAL) {
      for (const each of [...handlers]) if (each.interface === message.interface && each.member === message.member) each.handler(message);
      return;
    }
    if (message.type === METHOD_CALL) {
      // Nobody here serves anything; who asks is told, unless he wants no answer.
      if (message.flags & 1) return;
      const unknown = { errorName: "org.freedesktop.DBus.Error.UnknownMethod", signature: "s", body: ["no such method"] };
      const to = message.sender === undefined ? {} : { destination: message.sender };
      stream.send(encodeMessage({ type: ERROR, flags: 1, serial: ++serial, replySerial: message.serial, ...to, ...unknown }));
      return;
    }
    const asked = waiting.get(message.replySerial ?? 0);
    if (!asked) return;
    waiting.delete(message.replySerial!);
    if (message.type === METHOD_RETURN) asked.resolve(message.body);
    else {
      const text = typeof message.body[0] === "string" ? message.body[0] : "";
      const errorName = message.errorName ?? "org.freedesktop.DBus.Error.Failed";
      asked.reject(Object.assign(new Failure("Unknown", text || errorName), { errorName }));
    }
  };

  const read = () => {
    try {
      while (!ended) {
        const length = messageLength(received.bytes);
        if (length === undefined || received.bytes.length < length) return;
        const message = decodeMessage(received.bytes.subarray(0, length));
        received.skip(length);
        take(message);
      }
    } catch (error) {
      end(error as Error);
    }
  };

  stream.onData = (bytes) => {
    received.add(bytes);
    read();
  };
  stream.onEnd = (error) => end(unavailable(`D-Bus: ${error?.message ?? "the connection ended"}`));
  read();

  return {
    call({ signature = "", args = [], timeout = DEFAULT_TIMEOUT, ...to }) {
      return new Promise((resolve, reject) => {
        if (ended) return reject(ended);
        const number = ++serial;
        const bytes = encodeMessage({ type: METHOD_CALL, flags: 0, serial: number, ...to, signature, body: args });
        const timer = setTimeout(() => {
          waiting.delete(number);
          reject(new Failure("DeadlineExceeded", `D-Bus: no answer to ${to.member} in ${timeout} ms`));
        }, timeout);
        waiting.set(number, {
          resolve(body) {
            clearTimeout(timer);
            resolve(body);
          },
          reject(error) {
            clearTimeout(timer);
            reject(error);
          },
        });
        stream.send(bytes);
      });
    },
    onSignal(interfaceName, member, handler) {
      const entry = { interface: interfaceName, member, handler };
      handlers.add(entry);
      return () => void handlers.delete(entry);
    },
    close: () => end(unavailable("D-Bus: the connection is closed")),
  };
}
