import { atLeast, command } from "../command.ts";
import { eachInTurn } from "../each.ts";
import { hidden, int, string } from "../flags.ts";

export default command({
  use: "[OPTIONS] CONTAINER [CONTAINER...]",
  short: "Restart one or more containers",
  args: atLeast(1),
  flags: {
    signal: string("s", "Signal to send to the container"),
    timeout: int("t", "Seconds to wait before killing the container"),
    time: hidden(int("", "Seconds to wait before killing the container")),
  },
  async run(cli, flags, args) {
    if (cli.changed.has("time") && cli.changed.has("timeout"))
      throw new Error("conflicting options: cannot specify both --timeout and --time");
    const t = cli.changed.has("time") ? flags.time : cli.changed.has("timeout") ? flags.timeout : undefined;
    const client = await cli.client();
    return eachInTurn(cli, args, (name) => client.containers.restart(name, { t, signal: flags.signal || undefined }));
  },
});
