import { atLeast, command } from "../../command.ts";
import { string } from "../../flags.ts";
import { fetchRaw, inspectAll } from "../../inspect.ts";
import { platformQuery } from "../../platform.ts";

export default command({
  use: "[OPTIONS] IMAGE [IMAGE...]",
  short: "Display detailed information on one or more images",
  args: atLeast(1),
  flags: {
    format: string("f", "Format output using a custom template: 'json', or a Go template"),
    platform: string("", 'Inspect a specific platform of the multi-platform image. Formatted as "os[/arch[/variant]]"'),
  },
  async run(cli, flags, args) {
    const client = await cli.client();
    const platform = platformQuery(flags.platform);
    return inspectAll(cli, args, flags.format, (name) =>
      fetchRaw(client, `/images/${name.split("/").map(encodeURIComponent).join("/")}/json`, { platform }),
    );
  },
});
