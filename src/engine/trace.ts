// Gives the spans of one trace, of all layers on this host, to who asks: EXEC_ROOT/trace/TRACEID.jsonl.
import { createReadStream } from "node:fs";
import { readdir, stat, unlink } from "node:fs/promises";
import { invalidArgument, messageOf, notFound } from "../lib/errors.ts";
import { flush } from "../trace/index.ts";
import type { Engine } from "./context.ts";
import type { Route } from "./route.ts";

export function traceDir(execRoot: string): string {
  return `${execRoot}/trace`;
}

const KEPT = 100;

/** Removes all but the newest traces: they are for who asked for them just now. */
async function trim(dir: string): Promise<void> {
  const files = (await readdir(dir)).filter((name) => name.endsWith(".jsonl"));
  if (files.length <= KEPT) return;
  const aged = await Promise.all(files.map(async (name) => ({ name, at: (await stat(`${dir}/${name}`)).mtimeMs })));
  aged.sort((a, b) => b.at - a.at);
  await Promise.all(aged.slice(KEPT).map(({ name }) => unlink(`${dir}/${name}`)));
}

let seen = 0;

/** Call for each request that is traced: a client that asks for all of them must not fill the directory. */
export function traced(dir: string): void {
  if (++seen % KEPT === 0) trim(dir).catch(() => {});
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
        trim(traceDir(engine.config.execRoot)).catch((error: unknown) => engine.log("warn", `old traces stay: ${messageOf(error)}`));
        return { type: "application/x-ndjson", stream: createReadStream(file) };
      },
    },
  ];
}
