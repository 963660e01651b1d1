import { atLeast, command } from "../../command.ts";
import { bool, string } from "../../flags.ts";
import { fetchRaw, inspectAll } from "../../inspect.ts";

export default command({
  use: "[OPTIONS] NETWORK [NETWORK...]",
  short: "Display detailed information on one or more networks",
  args: atLeast(1),
  flags: {
    format: string("f", "Format output using a custom template: 'json', or a Go template"),
    verbose: bool("v", "Verbose output for diagnostics"),
  },
  async run(cli, flags, args) {
    const client = await cli.client();
    return inspectAll(cli, args, flags.format, (name) =>
      fetchRaw(client, `/networks/${encodeURIComponent(name)}`, { verbose: flags.verbose }),
    );
  },
});
