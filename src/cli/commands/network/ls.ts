import type { NetworkInspect } from "../../../api/types.ts";
import { command, none } from "../../command.ts";
import { bool, filter, string } from "../../flags.ts";
import { formatList, type ListFormat } from "../../formatter.ts";
import { shortId } from "../../units.ts";
import { FORMAT_HELP, joinLabels } from "../ps.ts";

export default command({
  use: "[OPTIONS]",
  short: "List networks",
  args: none,
  flags: {
    filter: filter('Provide filter values (e.g. "driver=bridge")'),
    format: string("", FORMAT_HELP()),
    "no-trunc": bool("", "Do not truncate the output"),
    quiet: bool("q", "Only display network IDs"),
  },
  async run(cli, flags) {
    const client = await cli.client();
    const networks = await client.networks.list(flags.filter);
    networks.sort((a, b) => naturalCompare(a.Name ?? "", b.Name ?? ""));
    const format = flags.format || (flags.quiet ? "" : (cli.config.networksFormat ?? ""));
    cli.out(formatList(networkList(!flags["no-trunc"]), networks, { format, quiet: flags.quiet }));
  },
});

/** Numbers within names count as numbers: net2 before net10. */
export function naturalCompare(a: string, b: string): number {
  const split = (text: string) => text.match(/\d+|\D+/g) ?? [];
  const [x, y] = [split(a), split(b)];
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    const [p, q] = [x[i]!, y[i]!];
    if (p === q) continue;
    if (/^\d/.test(p) && /^\d/.test(q) && Number(p) !== Number(q)) return Number(p) - Number(q);
    return p < q ? -1 : 1;
  }
  return x.length - y.length;
}

function networkList(truncate: boolean): ListFormat<NetworkInspect> {
  return {
    type: "*network.networkContext",
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    quiet: "{{.ID}}",
    raw: "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
    columns: {
      ID: { header: "NETWORK ID", value: (n) => (truncate ? shortId(n.Id ?? "") : n.Id) },
      Name: { header: "NAME", value: (n) => n.Name },
      Driver: { header: "DRIVER", value: (n) => n.Driver },
      Scope: { header: "SCOPE", value: (n) => n.Scope },
      IPv4: { header: "IPV4", value: (n) => String(n.EnableIPv4 ?? false) },
      IPv6: { header: "IPV6", value: (n) => String(n.EnableIPv6 ?? false) },
      Internal: { header: "INTERNAL", value: (n) => String(n.Internal ?? false) },
      Labels: { header: "LABELS", value: (n) => joinLabels(n.Labels) },
      Label: { header: "", method: true, value: (n, name) => n.Labels?.[name] ?? "" },
      CreatedAt: { header: "CREATED AT", value: (n) => createdAt(n.Created ?? "") },
    },
  };
}

/** Go's Time.String() of an RFC 3339 time. */
function createdAt(text: string): string {
  const match = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)$/.exec(text);
  if (!match) return text;
  const [, day, time, fraction = "", zone] = match;
  const trimmed = fraction.replace(/0+$/, "").replace(/\.$/, "");
  return zone === "Z"
    ? `${day} ${time}${trimmed} +0000 UTC`
    : `${day} ${time}${trimmed} ${zone!.replace(":", "")} ${zone!.replace(":", "")}`;
}
