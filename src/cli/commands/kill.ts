import { atLeast, command } from "../command.ts";
import { eachAtOnce } from "../each.ts";
import { string } from "../flags.ts";

export default command({
  use: "[OPTIONS] CONTAINER [CONTAINER...]",
  short: "Kill one or more running containers",
  args: atLeast(1),
  flags: { signal: string("s", "Signal to send to the container") },
  async run(cli, flags, args) {
    const client = await cli.client();
    return eachAtOnce(cli, args, (name) => client.containers.kill(name, flags.signal || undefined));
  },
});
