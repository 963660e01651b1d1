import { command, exactly } from "../../command.ts";
import { formatList, type ListFormat } from "../../formatter.ts";
import { CHECKPOINT_DIR } from "./create.ts";

export default command({
  use: "[OPTIONS] CONTAINER",
  short: "List checkpoints for a container",
  args: exactly(1),
  flags: { "checkpoint-dir": CHECKPOINT_DIR },
  async run(cli, flags, [container]) {
    const client = await cli.client();
    const checkpoints = await client.containers.checkpoints.list(container!, flags["checkpoint-dir"] || undefined);
    cli.out(formatList(checkpointList, checkpoints ?? [], { format: "", quiet: false }));
  },
});

const checkpointList: ListFormat<{ Name: string }> = {
  type: "*formatter.checkpointContext",
  table: "{{.Name}}",
  quiet: "{{.Name}}",
  raw: "{{.Name}}\n",
  columns: { Name: { header: "CHECKPOINT NAME", value: (c) => c.Name } },
};
