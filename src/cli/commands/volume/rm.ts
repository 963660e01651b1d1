import { atLeast, command } from "../../command.ts";
import { eachInTurn } from "../../each.ts";
import { bool } from "../../flags.ts";

export default command({
  use: "[OPTIONS] VOLUME [VOLUME...]",
  short: "Remove one or more volumes",
  args: atLeast(1),
  flags: { force: bool("f", "Force the removal of one or more volumes") },
  async run(cli, flags, args) {
    const client = await cli.client();
    return eachInTurn(cli, args, (name) => client.volumes.remove(name, flags.force));
  },
});
