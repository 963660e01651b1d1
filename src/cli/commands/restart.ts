import { atLeast, command } from "../command.ts";
import { eachInTurn } from "../each.ts";
import { stopFlags, stopOptions } from "../stop-options.ts";

export default command({
  use: "[OPTIONS] CONTAINER [CONTAINER...]",
  short: "Restart one or more containers",
  args: atLeast(1),
  flags: stopFlags,
  async run(cli, flags, args) {
    const options = stopOptions(cli, flags);
    const client = await cli.client();
    return eachInTurn(cli, args, (name) => client.containers.restart(name, options));
  },
});
