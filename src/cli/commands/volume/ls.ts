import type { Volume } from "../../../api/types.ts";
import { command, none } from "../../command.ts";
import { bool, filter, hidden, string } from "../../flags.ts";
import { formatList, type ListFormat } from "../../formatter.ts";
import { humanSize } from "../../units.ts";
import { naturalCompare } from "../network/ls.ts";
import { FORMAT_HELP, joinLabels } from "../ps.ts";

export default command({
  use: "[OPTIONS]",
  short: "List volumes",
  args: none,
  flags: {
    cluster: hidden(bool("", "Display only cluster volumes, and use cluster volume list formatting")),
    filter: filter('Provide filter values (e.g. "dangling=true")'),
    format: string("", FORMAT_HELP()),
    quiet: bool("q", "Only display volume names"),
  },
  async run(cli, flags) {
    const client = await cli.client();
    const { Volumes, Warnings } = await client.volumes.list(flags.filter);
    const volumes = [...(Volumes ?? [])].sort((a, b) => naturalCompare(a.Name, b.Name));
    const format = flags.format || (flags.quiet ? "" : (cli.config.volumesFormat ?? ""));
    cli.out(formatList(volumeList, volumes, { format, quiet: flags.quiet }));
    for (const warning of Warnings ?? []) cli.err(`WARNING: ${warning}\n`);
  },
});

export const volumeList: ListFormat<Volume> = {
  type: "*formatter.volumeContext",
  table: "{{.Driver}}\t{{.Name}}",
  quiet: "{{.Name}}",
  raw: "name: {{.Name}}\ndriver: {{.Driver}}\n",
  columns: {
    Name: { header: "VOLUME NAME", value: (v) => v.Name },
    Driver: { header: "DRIVER", value: (v) => v.Driver },
    Scope: { header: "SCOPE", value: (v) => v.Scope },
    Mountpoint: { header: "MOUNTPOINT", value: (v) => v.Mountpoint },
    Labels: { header: "LABELS", value: (v) => joinLabels(v.Labels) },
    Label: { header: "", method: true, value: (v, name) => v.Labels?.[name] ?? "" },
    Links: { header: "LINKS", value: (v) => (v.UsageData ? String(v.UsageData.RefCount) : "N/A") },
    Size: { header: "SIZE", value: (v) => (v.UsageData ? humanSize(v.UsageData.Size) : "N/A") },
    Availability: { header: "AVAILABILITY", value: () => "N/A" },
    Group: { header: "GROUP", value: () => "N/A" },
    Status: { header: "STATUS", value: () => "N/A" },
  },
};
