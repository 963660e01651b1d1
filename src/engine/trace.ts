// Gives the spans of one trace, of all layers on this host, to who asks: EXEC_ROOT/trace/TRACEID.jsonl.
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { invalidArgument, notFound } from "../lib/errors.ts";
import { flush } from "../trace/index.ts";
import type { Engine } from "./context.ts";
import type { Route } from "./route.ts";

export function traceDir(execRoot: string): string {
  return `${execRoot}/trace`;
}

export function traceRoutes(engine: Engine): Route[] {
  return [
    {
      method: "GET",
      path: "/jubako/trace/{traceId}",
      async handle({ params }) {
        const id = params.traceId!;
        if (!/^[0-9a-f]{32}$/.test(id)) throw invalidArgument(`a trace id has 32 hexadecimal digits: ${id}`);
        flush();
        const file = `${traceDir(engine.config.execRoot)}/${id}.jsonl`;
        if (!(await stat(file).catch(() => undefined))) throw notFound(`No such trace: ${id}`);
        return { type: "application/x-ndjson", stream: createReadStream(file) };
      },
    },
  ];
}
