import { isApiFailure } from "../../../client/index.ts";
import { atLeast, command, StatusError } from "../../command.ts";
import { bool } from "../../flags.ts";
import { daemonMessage } from "../../index.ts";

export default command({
  use: "NETWORK [NETWORK...]",
  short: "Remove one or more networks",
  args: atLeast(1),
  flags: { force: bool("f", "Do not error if the network does not exist") },
  async run(cli, flags, args) {
    const client = await cli.client();
    let failed = false;
    for (const name of args) {
      try {
        await client.networks.remove(name);
        cli.out(`${name}\n`);
      } catch (error) {
        if (flags.force && isApiFailure(error) && error.status === 404) continue;
        cli.err(`${daemonMessage(error)}\n`);
        failed = true;
      }
    }
    if (failed) throw new StatusError(1, "exit status 1");
    return 0;
  },
});
