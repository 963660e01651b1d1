import type { ContainerSummary, PortSummary } from "../../api/types.ts";
import { command, none } from "../command.ts";
import { bool, filter, int, string } from "../flags.ts";
import { chooseFormat, formatList, type ListFormat } from "../formatter.ts";
import { quote } from "../template/index.ts";
import { ago, ellipsis, goTime, humanSize } from "../units.ts";

export default command({
  use: "[OPTIONS]",
  short: "List containers",
  args: none,
  flags: {
    all: bool("a", "Show all containers (default shows just running)"),
    filter: filter("Filter output based on conditions provided"),
    format: string("", FORMAT_HELP()),
    last: int("n", "Show n last created containers (includes all states)", -1),
    latest: bool("l", "Show the latest created container (includes all states)"),
    "no-trunc": bool("", "Don't truncate output"),
    quiet: bool("q", "Only display container IDs"),
    size: bool("s", "Display total file sizes"),
  },
  async run(cli, flags) {
    const client = await cli.client();
    const format = flags.format || (flags.quiet ? "" : (cli.config.psFormat ?? ""));
    const last = flags.latest && !cli.changed.has("last") ? 1 : flags.last;
    const list = containerList(!flags["no-trunc"], flags.size);
    const { template, table } = chooseFormat(list, { format, quiet: flags.quiet });
    const size =
      flags.size ||
      (!cli.changed.has("size") && !table && /\.Size\b|json \.[ }]/.test(template) && format !== "json" && format !== "raw") ||
      (table && /\.Size\b/.test(template));
    const rows = await client.containers.list({
      all: flags.all || last > 0,
      limit: last > 0 ? last : undefined,
      size,
      filters: flags.filter,
    });
    cli.out(formatList(list, rows, { format, quiet: flags.quiet }));
  },
});

export function FORMAT_HELP(): string {
  return "Format output using a custom template:\n'table':            Columns with headers (default)\n'table TEMPLATE':   The template's columns with headers\n'json':             One JSON object a line\n'TEMPLATE':         A Go template for each item";
}

export function containerList(truncate: boolean, size: boolean): ListFormat<ContainerSummary> {
  return {
    type: "*formatter.ContainerContext",
    table:
      `table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}${size ? "\t{{.Size}}" : ""}`.slice(6),
    quiet: "{{.ID}}",
    raw: `container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n${size ? "size: {{.Size}}\n" : ""}`,
    columns: {
      ID: { header: "CONTAINER ID", value: (c) => (truncate ? (c.Id ?? "").slice(0, 12) : c.Id) },
      Names: { header: "NAMES", value: (c) => names(c, truncate) },
      Image: { header: "IMAGE", value: (c) => imageName(c, truncate) },
      Command: { header: "COMMAND", value: (c) => quote(truncate ? ellipsis(c.Command ?? "", 20) : (c.Command ?? "")) },
      CreatedAt: { header: "CREATED AT", value: (c) => goTime(c.Created ?? 0) },
      RunningFor: { header: "CREATED", value: (c) => ago(c.Created ?? 0) },
      Ports: { header: "PORTS", value: (c) => displayPorts(c.Ports ?? []) },
      State: { header: "STATE", value: (c) => c.State ?? "" },
      Status: { header: "STATUS", value: (c) => c.Status ?? "" },
      Size: { header: "SIZE", value: sizeOf },
      Labels: { header: "LABELS", value: (c) => joinLabels(c.Labels) },
      Label: { header: "", method: true, value: (c, name) => c.Labels?.[name] ?? "" },
      Mounts: { header: "MOUNTS", value: (c) => (c.Mounts ?? []).map((m) => mountName(m, truncate)).join(",") },
      LocalVolumes: { header: "LOCAL VOLUMES", value: (c) => String((c.Mounts ?? []).filter((m) => m.Driver === "local").length) },
      Networks: {
        header: "NETWORKS",
        value: (c) =>
          Object.keys(c.NetworkSettings?.Networks ?? {})
            .sort()
            .join(","),
      },
      Platform: { header: "PLATFORM", value: (c) => c.ImageManifestDescriptor?.platform ?? null },
    },
  };
}

/** "a=b,c=d", in the order of the keys. */
export function joinLabels(labels: Record<string, string> | undefined | null): string {
  return Object.entries(labels ?? {})
    .map(([key, value]) => `${key}=${value}`)
    .sort()
    .join(",");
}

/** Names without the slash; the ones by which other containers link to it are hidden. */
function names(c: ContainerSummary, truncate: boolean): string {
  const all = (c.Names ?? []).map((name) => name.replace(/^\//, ""));
  return (truncate ? all.filter((name) => !name.includes("/")) : all).join(",");
}

function imageName(c: ContainerSummary, truncate: boolean): string {
  const image = c.Image ?? "";
  if (image === "") return "<no image>";
  if (!truncate) return image;
  if (c.ImageID === image) return image.replace(/^sha256:/, "").slice(0, 12);
  const digest = image.indexOf("@");
  if (digest < 0) return image;
  const named = image.slice(0, digest);
  return /:[^/]*$/.test(named) ? named : named;
}

function mountName(mount: NonNullable<ContainerSummary["Mounts"]>[number], truncate: boolean): string {
  const name = mount.Name || mount.Source || "";
  return truncate ? ellipsis(name, 15) : name;
}

function sizeOf(c: ContainerSummary): string {
  const rw = humanSize(c.SizeRw ?? 0, 3);
  return (c.SizeRootFs ?? 0) > 0 ? `${rw} (virtual ${humanSize(c.SizeRootFs!, 3)})` : rw;
}

/** "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 443/tcp"; neighbours are joined into ranges. */
export function displayPorts(ports: readonly PortSummary[]): string {
  const sorted = [...ports].sort(comparePorts);
  interface Run {
    ip: string;
    type: string;
    first: number;
    last: number;
  }
  const runs = new Map<string, Run>();
  const ranges: string[] = [];
  const singles: string[] = [];
  const address = (ip: string) => (ip.includes(":") ? `[${ip}]` : ip);
  const render = ({ ip, type, first, last }: Run) => {
    const span = first === last ? `${first}` : `${first}-${last}`;
    return ip ? `${address(ip)}:${span}->${span}/${type}` : `${span}/${type}`;
  };
  for (const port of sorted) {
    if (port.IP && port.PublicPort !== port.PrivatePort) {
      singles.push(`${address(port.IP)}:${port.PublicPort}->${port.PrivatePort}/${port.Type}`);
      continue;
    }
    const key = port.IP ? `${port.IP}/${port.Type}` : port.Type;
    const run = runs.get(key);
    if (run && run.last + 1 === port.PrivatePort) {
      run.last = port.PrivatePort;
      continue;
    }
    if (run) ranges.push(render(run));
    runs.set(key, { ip: port.IP ?? "", type: port.Type, first: port.PrivatePort, last: port.PrivatePort });
  }
  for (const run of runs.values()) ranges.push(render(run));
  return [...ranges, ...singles].join(", ");
}

function comparePorts(a: PortSummary, b: PortSummary): number {
  return (
    a.PrivatePort - b.PrivatePort ||
    compareText(a.IP ?? "", b.IP ?? "") ||
    (a.PublicPort ?? 0) - (b.PublicPort ?? 0) ||
    compareText(a.Type, b.Type)
  );
}

const compareText = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);
