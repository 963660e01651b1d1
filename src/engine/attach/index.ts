// POST /containers/{id}/attach and /resize: clients at the streams of a container's first process.
import { conflict, invalidArgument, unimplemented } from "../../lib/errors.ts";
import type { ContainerRecord, Engine } from "../context.ts";
import { logSettings } from "../logs/options.ts";
import { readLog } from "../logs/reader.ts";
import { type Call, flag, hijacked, type Route } from "../route.ts";
import { connectClient, frame, streamType } from "./connection.ts";
import { DEFAULT_DETACH_KEYS, parseDetachKeys } from "./detach.ts";

async function* replayLog(record: ContainerRecord, stdout: boolean, stderr: boolean): AsyncGenerator<Buffer> {
  const settings = logSettings(record);
  if (!settings) return;
  const options = { stdout, stderr, since: undefined, until: undefined, tail: undefined };
  for await (const entries of readLog(settings, options)) {
    yield Buffer.concat(entries.map((entry) => (record.config.Tty ? Buffer.from(entry.line) : frame(entry.stream, entry.line))));
  }
}

function attach(engine: Engine, call: Call): typeof hijacked {
  const record = engine.containers.get(call.params.id!);
  if (record.state.Paused) throw conflict(`container ${record.id} is paused, unpause the container before attach`);
  if (record.state.Restarting) throw conflict(`container ${record.id} is restarting, wait until the container is running`);
  const keys = call.query.get("detachKeys");
  const detachKeys = keys ? parseDetachKeys(keys) : DEFAULT_DETACH_KEYS;
  const terminal = record.config.Tty ?? false;
  const live = flag(call.query, "stream");
  const stdout = flag(call.query, "stdout");
  const stderr = flag(call.query, "stderr");
  const duplex = call.hijack(streamType(call.version, terminal));
  engine.events.publish("container", "attach", record.id, engine.events.containerAttributes(record));
  const replay = flag(call.query, "logs") ? replayLog(record, stdout, stderr) : undefined;
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
    terminal,
    stdin: flag(call.query, "stdin") && (record.config.OpenStdin ?? false),
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
    { method: "POST", path: "/containers/{id}/attach", handle: (call) => attach(engine, call) },
    {
      method: "GET",
      path: "/containers/{id}/attach/ws",
      handle() {
        throw unimplemented("attach over a websocket is not part of this engine; use POST /containers/{id}/attach");
      },
    },
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
