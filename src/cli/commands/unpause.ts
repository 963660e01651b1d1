import { atLeast, command } from "../command.ts";
import { eachAtOnce } from "../each.ts";

export default command({
  use: "CONTAINER [CONTAINER...]",
  short: "Unpause all processes within one or more containers",
  args: atLeast(1),
  flags: {},
  async run(cli, _flags, args) {
    const client = await cli.client();
    return eachAtOnce(cli, args, (name) => client.containers.unpause(name));
  },
});
