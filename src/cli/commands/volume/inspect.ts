import { atLeast, command } from "../../command.ts";
import { string } from "../../flags.ts";
import { fetchRaw, inspectAll } from "../../inspect.ts";

export default command({
  use: "[OPTIONS] VOLUME [VOLUME...]",
  short: "Display detailed information on one or more volumes",
  args: atLeast(1),
  flags: { format: string("f", "Format output using a custom template: 'json', or a Go template") },
  async run(cli, flags, args) {
    const client = await cli.client();
    return inspectAll(cli, args, flags.format, (name) => fetchRaw(client, `/volumes/${encodeURIComponent(name)}`), {
      type: "volume.Volume",
    });
  },
});
