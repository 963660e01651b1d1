import type { ImageHistoryResponseItem } from "../../api/types.ts";
import { command, exactly } from "../command.ts";
import { bool, string } from "../flags.ts";
import { formatList, type ListFormat } from "../formatter.ts";
import { platformQuery } from "../platform.ts";
import { ago, ellipsis, humanSize, shortId } from "../units.ts";
import { FORMAT_HELP } from "./ps.ts";

export default command({
  use: "[OPTIONS] IMAGE",
  short: "Show the history of an image",
  args: exactly(1),
  flags: {
    format: string("", FORMAT_HELP()),
    human: bool("H", "Print sizes and dates in human readable format", true),
    "no-trunc": bool("", "Don't truncate output"),
    platform: string("", 'Show history for the given platform. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")'),
    quiet: bool("q", "Only show image IDs"),
  },
  async run(cli, flags, args) {
    const client = await cli.client();
    const items = await client.images.history(args[0]!, { platform: platformQuery(flags.platform) });
    cli.out(formatList(historyList(!flags["no-trunc"], flags.human), items, { format: flags.format, quiet: flags.quiet }));
  },
});

function historyList(truncate: boolean, human: boolean): ListFormat<ImageHistoryResponseItem> {
  return {
    type: "*image.historyContext",
    table: human
      ? "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
      : "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    quiet: "{{.ID}}",
    columns: {
      ID: { header: "IMAGE", value: (item) => (truncate ? shortId(item.Id) : item.Id) },
      CreatedAt: { header: "CREATED AT", value: (item) => (item.Created <= 0 ? "" : rfc3339(item.Created)) },
      CreatedSince: {
        header: "CREATED",
        value: (item) => (human ? (item.Created <= 0 ? "N/A" : ago(item.Created)) : rfc3339(item.Created)),
      },
      CreatedBy: {
        header: "CREATED BY",
        value: (item) => {
          const text = item.CreatedBy.replaceAll("\t", " ");
          return truncate ? ellipsis(text, 45) : text;
        },
      },
      Size: { header: "SIZE", value: (item) => (human ? humanSize(item.Size, 3) : String(item.Size)) },
      Comment: { header: "COMMENT", value: (item) => item.Comment },
    },
  };
}

function rfc3339(seconds: number): string {
  const offset = -new Date(seconds * 1000).getTimezoneOffset();
  const local = new Date(seconds * 1000 + offset * 60_000).toISOString().slice(0, 19);
  const two = (n: number) => String(n).padStart(2, "0");
  return offset === 0
    ? `${local}Z`
    : `${local}${offset < 0 ? "-" : "+"}${two(Math.trunc(Math.abs(offset) / 60))}:${two(Math.abs(offset) % 60)}`;
}
