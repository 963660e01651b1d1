// A connection to a message bus, or to a peer that speaks D-Bus itself (systemd's private socket). Who we are the other side sees by the socket's
// credentials (SASL EXTERNAL without a name of our own choosing: inside a user namespace we would not know the right one).
//
//   await using bus = await connectBus("unix:path=/run/dbus/system_bus_socket")
//   const [id] = await bus.call({ destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: …, member: "GetId" })
import { connect, type Socket } from "node:net";
import { Failure, unavailable } from "../../lib/errors.ts";
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

export interface Bus extends AsyncDisposable {
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
      const bus = serve(await authenticated(path));
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

interface Authenticated {
  socket: Socket;
  /** What came after the last line. */
  rest: Buffer;
}

function authenticated(path: string): Promise<Authenticated> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    let received = Buffer.alloc(0);
    const settle = (error: Error | undefined, value?: Authenticated) => {
      clearTimeout(timer);
      socket.removeAllListeners();
      if (value) return resolve(value);
      socket.destroy();
      reject(unavailable(`D-Bus at ${path.replace("\0", "@")}: ${error?.message ?? "it ended the connection"}`));
    };
    const timer = setTimeout(() => settle(new Error("no answer")), CONNECT_TIMEOUT);
    socket.once("error", settle);
    socket.once("close", () => settle(undefined));
    socket.once("connect", () => socket.write("\0AUTH EXTERNAL\r\n"));
    socket.on("data", (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      for (;;) {
        const end = received.indexOf("\r\n");
        if (end < 0) {
          if (received.length > MAX_LINE) settle(new Error("it does not speak D-Bus"));
          return;
        }
        const line = received.toString("latin1", 0, end);
        received = received.subarray(end + 2);
        if (/^DATA\b/.test(line)) socket.write("DATA\r\n");
        else if (/^OK\b/.test(line)) {
          socket.write("BEGIN\r\n");
          return settle(undefined, { socket, rest: received });
        } else return settle(new Error(`authentication refused: ${line.slice(0, 100)}`));
      }
    });
  });
}

interface Waiting {
  resolve(body: readonly Value[]): void;
  reject(error: Error): void;
}

function serve({ socket, rest }: Authenticated): Bus {
  let serial = 0;
  let received: Buffer = rest;
  let ended: Error | undefined;
  const waiting = new Map<number, Waiting>();
  const handlers = new Set<{ interface: string; member: string; handler: (message: Message) => void }>();

  const end = (error: Error) => {
    if (ended) return;
    ended = error;
    socket.destroy();
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
      socket.write(encodeMessage({ type: ERROR, flags: 1, serial: ++serial, replySerial: message.serial, ...to, ...unknown }));
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
      for (;;) {
        const length = messageLength(received);
        if (length === undefined || received.length < length) return;
        const message = received.subarray(0, length);
        received = received.subarray(length);
        take(decodeMessage(message));
      }
    } catch (error) {
      end(error as Error);
    }
  };

  socket.on("data", (chunk: Buffer) => {
    received = received.length ? Buffer.concat([received, chunk]) : chunk;
    read();
  });
  socket.on("error", (error) => end(unavailable(`D-Bus: ${error.message}`)));
  socket.on("close", () => end(unavailable("D-Bus: the connection ended")));
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
        socket.write(bytes);
      });
    },
    onSignal(interfaceName, member, handler) {
      const entry = { interface: interfaceName, member, handler };
      handlers.add(entry);
      return () => void handlers.delete(entry);
    },
    close: () => end(unavailable("D-Bus: the connection is closed")),
    async [Symbol.asyncDispose]() {
      end(unavailable("D-Bus: the connection is closed"));
    },
  };
}
