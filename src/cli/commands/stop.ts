import { atLeast, command } from "../command.ts";
import { eachAtOnce } from "../each.ts";
import { stopFlags, stopOptions } from "../stop-options.ts";

export default command({
  use: "[OPTIONS] CONTAINER [CONTAINER...]",
  short: "Stop one or more running containers",
  args: atLeast(1),
  flags: stopFlags,
  async run(cli, flags, args) {
    const options = stopOptions(cli, flags);
    const client = await cli.client();
    return eachAtOnce(cli, args, (name) => client.containers.stop(name, options));
  },
});
