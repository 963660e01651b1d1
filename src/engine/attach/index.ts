// POST /containers/{id}/attach, the same by a websocket, and /resize: clients at the streams of a container's first process.
import type { Duplex } from "node:stream";
import { conflict, invalidArgument } from "../../lib/errors.ts";
import type { ContainerRecord, Engine } from "../context.ts";
import { logSettings } from "../logs/options.ts";
import { readLog } from "../logs/reader.ts";
import { type Call, flag, hijacked, type Route } from "../route.ts";
import { connectClient, frame, streamType } from "./connection.ts";
import { DEFAULT_DETACH_KEYS, parseDetachKeys } from "./detach.ts";
import { acceptHandshake, websocket } from "./websocket.ts";

const MAX_BODY = 1 << 20;

async function* replayLog(record: ContainerRecord, stdout: boolean, stderr: boolean, framed: boolean): AsyncGenerator<Buffer> {
  const settings = logSettings(record);
  if (!settings) return;
  const options = { stdout, stderr, since: undefined, until: undefined, tail: undefined };
  for await (const entries of readLog(settings, options)) {
    yield Buffer.concat(entries.map((entry) => (framed ? frame(entry.stream, entry.line) : Buffer.from(entry.line))));
  }
}

/** How a client is connected: by a raw connection or by a websocket. */
interface Door {
  /** Whether clients say which of the streams they want; all three otherwise. */
  choosing: boolean;
  /** Whether standard output and error are told apart by frames where there is no terminal. */
  framed: boolean;
  open(terminal: boolean): Duplex;
}

const connectionOf = (call: Call): Door => ({
  choosing: true,
  framed: true,
  open: (terminal) => call.hijack(streamType(call.version, terminal)),
});

/** Since API 1.28 in binary frames, since 1.42 with the streams that are asked for. */
const websocketOf = (call: Call): Door => ({
  choosing: call.version >= 42,
  framed: false,
  open: () => websocket(call.hijack(undefined, acceptHandshake(call.headers)), call.version >= 28),
});

/** A body is no input: some clients (dockerode) send the query once more as JSON, and it must not reach the container. */
async function swallowBody(call: Call): Promise<void> {
  if (!(Number(call.headers["content-length"] ?? 0) > 0)) return;
  let length = 0;
  for await (const piece of call.body as AsyncIterable<Buffer>) {
    length += piece.length;
    if (length > MAX_BODY) throw invalidArgument(`request body is larger than ${MAX_BODY} bytes`);
  }
}

async function attach(engine: Engine, call: Call, door: Door): Promise<typeof hijacked> {
  const record = engine.containers.get(call.params.id!);
  if (record.state.Paused) throw conflict(`container ${record.id} is paused, unpause the container before attach`);
  if (record.state.Restarting) throw conflict(`container ${record.id} is restarting, wait until the container is running`);
  const keys = call.query.get("detachKeys");
  const detachKeys = keys ? parseDetachKeys(keys) : DEFAULT_DETACH_KEYS;
  const terminal = record.config.Tty ?? false;
  const live = flag(call.query, "stream");
  const wants = (stream: string) => !door.choosing || flag(call.query, stream);
  const stdout = wants("stdout");
  const stderr = wants("stderr");
  const framed = door.framed && !terminal;
  await swallowBody(call);
  const duplex = door.open(terminal);
  engine.events.publish("container", "attach", record.id, engine.events.containerAttributes(record));
  const replay = flag(call.query, "logs") ? replayLog(record, stdout, stderr, framed) : undefined;
  if (!live) {
    (async () => {
      for await (const bytes of replay ?? [])
        if (!duplex.write(bytes)) await new Promise<void>((resolve) => duplex.once("drain", resolve).once("close", resolve));
      duplex.end();
    })().catch(() => duplex.destroy());
    duplex.resume();
    return hijacked;
  }
  connectClient({
    duplex,
    streams: engine.io.streams(record.id),
    framed,
    stdin: wants("stdin") && (record.config.OpenStdin ?? false),
    stdout,
    stderr: stderr && !terminal,
    closesStdin: (record.config.StdinOnce ?? false) && !terminal,
    detachKeys: terminal ? detachKeys : undefined,
    detached: () => engine.events.publish("container", "detach", record.id, engine.events.containerAttributes(record)),
    replay,
  });
  return hijacked;
}

/** `h` and `w` of a resize request. */
export function windowSize(query: URLSearchParams): { height: number; width: number } {
  const size = (name: string) => {
    const text = query.get(name) ?? "";
    if (!/^\d{1,5}$/.test(text)) throw invalidArgument(`invalid resize ${name === "h" ? "height" : "width"} "${text}"`);
    return Number(text);
  };
  return { height: size("h"), width: size("w") };
}

export function routes(engine: Engine): Route[] {
  return [
    { method: "POST", path: "/containers/{id}/attach", handle: (call) => attach(engine, call, connectionOf(call)) },
    { method: "GET", path: "/containers/{id}/attach/ws", handle: (call) => attach(engine, call, websocketOf(call)) },
    {
      method: "POST",
      path: "/containers/{id}/resize",
      async handle(call) {
        const { height, width } = windowSize(call.query);
        const record = engine.containers.get(call.params.id!);
        if (!record.state.Running) throw conflict(`container ${record.id} is not running`);
        await engine.manager.tasks.resizePty({ containerId: record.id, execId: "", width, height });
        const attributes = { ...engine.events.containerAttributes(record), height: String(height), width: String(width) };
        engine.events.publish("container", "resize", record.id, attributes);
        return { status: 200 };
      },
    },
  ];
}
