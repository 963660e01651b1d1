// GET /containers/{id}/logs: what a container wrote, as its log driver kept it.
import { invalidArgument, unimplemented } from "../../lib/errors.ts";
import { frame, streamType } from "../attach/connection.ts";
import type { ContainerRecord, Engine } from "../context.ts";
import { type Call, flag, type Route } from "../route.ts";
import type { LogRecord, ReadOptions } from "./driver.ts";
import { logSettings } from "./options.ts";
import { type LogSource, readLog } from "./reader.ts";
import { formatNano, nanoNow, parseInstant } from "./time.ts";

function details(attrs: Record<string, string> | undefined): string {
  const encode = (text: string) => new URLSearchParams([["", text]]).toString().slice(1);
  const names = Object.keys(attrs ?? {}).sort();
  return `${names.map((name) => `${encode(name)}=${encode(attrs![name]!)}`).join(",")} `;
}

interface Form {
  timestamps: boolean;
  details: boolean;
  terminal: boolean;
}

function present(entry: LogRecord, form: Form): Uint8Array {
  const head = (form.timestamps ? `${formatNano(entry.time, true)} ` : "") + (form.details ? details(entry.attrs) : "");
  const line = head === "" ? entry.line : Buffer.concat([Buffer.from(head), entry.line]);
  return form.terminal ? line : frame(entry.stream, line);
}

async function* send(
  engine: Engine,
  call: Call,
  record: ContainerRecord,
  source: LogSource,
  options: ReadOptions,
  form: Form,
): AsyncGenerator<Uint8Array> {
  let follow: { streams: ReturnType<Engine["io"]["streams"]>; signal: AbortSignal } | undefined;
  let timer: NodeJS.Timeout | undefined;
  if (flag(call.query, "follow")) {
    const stop = new AbortController();
    follow = { streams: engine.io.streams(record.id), signal: AbortSignal.any([call.signal, engine.signal, stop.signal]) };
    const left = options.until === undefined ? undefined : Number((options.until - nanoNow()) / 1_000_000n);
    if (left !== undefined && left <= 0) follow = undefined;
    else if (left !== undefined) timer = setTimeout(() => stop.abort(), Math.min(left, 2 ** 31 - 1));
  }
  try {
    for await (const entries of readLog(source, options, follow)) yield Buffer.concat(entries.map((entry) => present(entry, form)));
  } finally {
    clearTimeout(timer);
  }
}

export function routes(engine: Engine): Route[] {
  return [
    {
      method: "GET",
      path: "/containers/{id}/logs",
      handle(call) {
        const stdout = flag(call.query, "stdout");
        const stderr = flag(call.query, "stderr");
        if (!stdout && !stderr) throw invalidArgument("Bad parameters: you must choose at least one stream");
        const record = engine.containers.get(call.params.id!);
        const source = logSettings(record);
        if (!source) throw unimplemented("configured logging driver does not support reading");
        const tail = call.query.get("tail") ?? "";
        const options: ReadOptions = {
          stdout,
          stderr,
          since: parseInstant(call.query.get("since")),
          until: parseInstant(call.query.get("until")),
          tail: /^\d+$/.test(tail) ? Number(tail) : undefined,
        };
        const terminal = record.config.Tty ?? false;
        const form = { timestamps: flag(call.query, "timestamps"), details: flag(call.query, "details"), terminal };
        return { type: streamType(call.version, terminal), stream: send(engine, call, record, source, options, form) };
      },
    },
  ];
}
