import { command, exactly } from "../../command.ts";
import { bool } from "../../flags.ts";

export default command({
  use: "[OPTIONS] NETWORK CONTAINER",
  short: "Disconnect a container from a network",
  args: exactly(2),
  flags: { force: bool("f", "Force the container to disconnect from a network") },
  async run(cli, flags, args) {
    const client = await cli.client();
    await client.networks.disconnect(args[0]!, args[1]!, flags.force);
  },
});
