import type { FilesystemChange } from "../../api/types.ts";
import { command, exactly } from "../command.ts";
import { string } from "../flags.ts";
import { formatList, type ListFormat } from "../formatter.ts";

const list: ListFormat<FilesystemChange> = {
  type: "*container.diffContext",
  table: "{{.Type}}\t{{.Path}}",
  columns: {
    Type: { header: "CHANGE TYPE", value: (change) => ["C", "A", "D"][change.Kind] ?? "?" },
    Path: { header: "PATH", value: (change) => change.Path },
  },
};

export default command({
  use: "CONTAINER",
  short: "Inspect changes to files or directories on a container's filesystem",
  args: exactly(1),
  flags: { format: { ...string("", "Format output using a Go template"), hidden: true } },
  async run(cli, flags, args) {
    const client = await cli.client();
    const changes = (await client.containers.changes(args[0]!)) ?? [];
    cli.out(formatList(list, changes, { format: flags.format || "{{.Type}} {{.Path}}" }));
  },
});
