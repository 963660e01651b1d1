import { defaultHost, loadContexts } from "../../../client/index.ts";
import { type Cli, command, none } from "../../command.ts";
import { bool, string } from "../../flags.ts";
import { formatList, type ListFormat } from "../../formatter.ts";
import { naturalCompare } from "../network/ls.ts";
import { FORMAT_HELP } from "../ps.ts";

interface Row {
  name: string;
  description: string;
  host: string;
  current: boolean;
  error: string;
}

const list: ListFormat<Row> = {
  type: "*formatter.clientContextContext",
  table: "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
  quiet: "{{.Name}}",
  columns: {
    Name: { header: "NAME", value: (row) => row.name },
    Description: { header: "DESCRIPTION", value: (row) => row.description },
    DockerEndpoint: { header: "DOCKER ENDPOINT", value: (row) => row.host },
    Current: { header: "", value: (row) => row.current },
    Error: { header: "ERROR", value: (row) => row.error },
  },
};

export default command({
  use: "[OPTIONS]",
  short: "List contexts",
  args: none,
  flags: { format: string("", FORMAT_HELP()), quiet: bool("q", "Only show context names") },
  async run(cli, flags) {
    const current = cli.contextName();
    const { listContexts } = await loadContexts();
    const rows: Row[] = [defaultRow(cli, current === "default")];
    for (const context of listContexts(cli.configDir)) {
      rows.push({ name: context.name, description: context.description, host: context.host, current: context.name === current, error: "" });
    }
    if (!rows.some((row) => row.current)) {
      rows.push({ name: current, description: "", host: "", current: true, error: `context "${current}": context not found` });
    }
    rows.sort((a, b) => naturalCompare(a.name, b.name));
    cli.out(formatList(list, rows, { format: flags.format, quiet: flags.quiet }));
    if (cli.env.DOCKER_HOST) {
      cli.err(
        "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.\n",
      );
    }
  },
});

function defaultRow(cli: Cli, current: boolean): Row {
  return {
    name: "default",
    description: "Current DOCKER_HOST based configuration",
    host: cli.env.DOCKER_HOST || defaultHost(),
    current,
    error: "",
  };
}
