import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { type Client, isApiFailure } from "../../client/index.ts";
import { entering, flush, newTrace, now, record, type Span, span, toHeaders } from "../../trace/index.ts";
import { atLeast, command } from "../command.ts";
import { bool } from "../flags.ts";
import { main, VERSION } from "../index.ts";
import { output } from "../output.ts";
import { otlp } from "../waterfall/otlp.ts";
import { render } from "../waterfall/render.ts";
import { lines } from "../waterfall/tree.ts";

export default command({
  use: "[OPTIONS] COMMAND [ARG...]",
  short: "Run a command and show its path through every layer",
  long: "Run a command of this program and show its path through every layer: the command line, the API, the engine, the manager,\nthe shim, and every system call of the runtime's tape, up to the first instruction of the user's program and the clean-up.\nAgainst an engine that is not Jubako's only the command line's own spans are known.",
  args: atLeast(1),
  flags: { json: bool("", "Print OpenTelemetry's JSON (OTLP); the command's own output then goes to standard error") },
  interspersed: false,
  async run(cli, flags, args) {
    const entered = now();
    const dir = mkdtempSync(`${tmpdir()}/jubako-trace-`);
    // At exit, as a pipe that is closed on us ends the program at once.
    process.on("exit", () => rmSync(dir, { recursive: true, force: true }));
    const context = newTrace(dir, "cli");
    const title = `${cli.name} ${args.join(" ")}`;
    const originalOut = output.out;
    if (flags.json) output.out = output.err;
    let status: number;
    try {
      status = await entering(context, () =>
        span(title, { "process.pid": process.pid }, async () => {
          const begun = BigInt(Math.round(performance.timeOrigin * 1e6));
          entering(context, () => record(context, "start of the program", begun, entered, {}, context.spanId));
          return main([...globalArguments(), ...args], { around: (name, send) => span(name, {}, send), extraHeaders: toHeaders });
        }),
      );
    } finally {
      output.out = originalOut;
    }
    flush();
    const own = parseSpans(readFileSync(`${dir}/${context.traceId}.jsonl`, "utf8"));
    const { spans, note } = await engineSpans(await cli.client(), context.traceId);
    const all = [...own, ...spans];
    if (flags.json) cli.out(`${JSON.stringify(otlp(all, VERSION))}\n`);
    else {
      const width = await columns(cli.isTty(1));
      cli.out(
        `\n${render(lines(all), { title: `trace ${context.traceId} · ${title} · exit status ${status}`, width, color: cli.isTty(1) && !cli.env.NO_COLOR })}`,
      );
    }
    if (note) cli.err(`${note}\n`);
    return status;
  },
});

/** The global flags of this call, which stand before `trace`. */
function globalArguments(): string[] {
  const argv = process.argv;
  const at = argv.indexOf("trace");
  const first = argv.findIndex((word, i) => i > 0 && i < at && word.startsWith("-"));
  return first < 0 ? [] : argv.slice(first, at);
}

async function columns(terminal: boolean): Promise<number> {
  if (!terminal) return 140;
  const { terminalSize } = await import("../terminal/tty.ts");
  return terminalSize(1)?.w || 140;
}

function parseSpans(text: string): Span[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Span);
}

const QUIET_MS = 150;
const LIMIT_MS = 2000;

/** The other layers' spans. What follows an answer (clean-up) is still to come: asked again until nothing is new for a while. */
async function engineSpans(client: Client, traceId: string): Promise<{ spans: Span[]; note: string | undefined }> {
  let spans: Span[] = [];
  const start = performance.now();
  let changed = start;
  while (performance.now() - changed < QUIET_MS && performance.now() - start < LIMIT_MS) {
    try {
      const next = parseSpans(await (await client.system.trace(traceId)).text());
      if (next.length !== spans.length) changed = performance.now();
      spans = next;
    } catch (error) {
      if (isApiFailure(error) && error.status !== 404) throw error;
      const body = isApiFailure(error) ? error.message : "";
      if (!body.startsWith("No such trace"))
        return { spans: [], note: "note: this engine keeps no trace; only the command line's own spans are shown" };
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  return { spans, note: spans.length === 0 ? "note: the engine kept no spans of this command" : undefined };
}
