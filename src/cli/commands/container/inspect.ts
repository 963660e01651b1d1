import { atLeast, command } from "../../command.ts";
import { bool, string } from "../../flags.ts";
import { fetchRaw, inspectAll } from "../../inspect.ts";

export default command({
  use: "[OPTIONS] CONTAINER [CONTAINER...]",
  short: "Display detailed information on one or more containers",
  args: atLeast(1),
  flags: {
    format: string("f", "Format output using a custom template: 'json', or a Go template"),
    size: bool("s", "Display total file sizes"),
  },
  async run(cli, flags, args) {
    const client = await cli.client();
    return inspectAll(cli, args, flags.format, (name) =>
      fetchRaw(client, `/containers/${encodeURIComponent(name)}/json`, { size: flags.size }),
    );
  },
});
