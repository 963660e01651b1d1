import { textLines } from "../../client/index.ts";
import { command, none, StatusError } from "../command.ts";
import { filter, string } from "../flags.ts";
import { parseExact } from "../json-text.ts";
import { compile, TemplateSyntaxError } from "../template/index.ts";
import { timestamp } from "../time.ts";

export default command({
  use: "[OPTIONS]",
  short: "Get real time events from the server",
  args: none,
  flags: {
    filter: filter("Filter output based on conditions provided"),
    format: string("", "Format output using a custom template: 'json', or a Go template"),
    since: string("", "Show all events created since timestamp"),
    until: string("", "Stream events until this timestamp"),
  },
  async run(cli, flags) {
    let template: ((data: unknown) => string) | undefined;
    if (flags.format !== "" && flags.format !== "json") {
      try {
        template = compile(flags.format.replaceAll("\\t", "\t").replaceAll("\\n", "\n"));
      } catch (error) {
        if (error instanceof TemplateSyntaxError) throw new StatusError(64, `Error parsing format: ${error.message}`);
        throw error;
      }
    }
    const client = await cli.client();
    const response = await client.system.events({
      since: flags.since && timestamp(flags.since),
      until: flags.until && timestamp(flags.until),
      filters: flags.filter,
    });
    for await (const line of textLines(response)) {
      if (flags.format === "json") cli.out(`${line}\n`);
      else if (template) cli.out(`${template(eventContext(line))}\n`);
      else cli.out(plain(line));
    }
    return 0;
  },
});

interface Event {
  Type?: string;
  Action?: string;
  Actor?: { ID?: string; Attributes?: Record<string, string> };
  time?: number;
  timeNano?: number | bigint;
  status?: string;
  id?: string;
  from?: string;
  scope?: string;
}

/** Fields as Go's struct names them, and as the JSON has them. */
function eventContext(line: string): Record<string, unknown> {
  const event = parseExact(line) as Event;
  const { status = "", id = "", from = "", Type = "", Action = "", scope = "", time = 0, timeNano = 0 } = event;
  const Actor = { ID: event.Actor?.ID ?? "", Attributes: event.Actor?.Attributes ?? {} };
  return { Status: status, ID: id, From: from, Type, Action, Actor, Scope: scope, Time: time, TimeNano: timeNano };
}

function plain(line: string): string {
  const event = parseExact(line) as Event;
  const nano = BigInt(event.timeNano ?? 0);
  const when = nano > 0n ? localTime(nano) : event.time ? localTime(BigInt(event.time) * 1_000_000_000n) : "";
  const attributes = Object.entries(event.Actor?.Attributes ?? {})
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${value}`);
  const suffix = attributes.length > 0 ? ` (${attributes.join(", ")})` : "";
  return `${when} ${event.Type} ${event.Action} ${event.Actor?.ID}${suffix}\n`;
}

/** RFC 3339 with nine digits of a second, in local time. */
function localTime(nano: bigint): string {
  const ms = Number(nano / 1_000_000n);
  const offset = -new Date(ms).getTimezoneOffset();
  const two = (n: number) => String(n).padStart(2, "0");
  const zone = offset === 0 ? "Z" : `${offset < 0 ? "-" : "+"}${two(Math.trunc(Math.abs(offset) / 60))}:${two(Math.abs(offset) % 60)}`;
  return `${new Date(ms + offset * 60_000).toISOString().slice(0, 19)}.${String(nano % 1_000_000_000n).padStart(9, "0")}${zone}`;
}
