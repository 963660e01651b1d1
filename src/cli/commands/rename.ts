import { command, exactly, StatusError } from "../command.ts";
import { daemonMessage } from "../index.ts";

export default command({
  use: "CONTAINER NEW_NAME",
  short: "Rename a container",
  args: exactly(2),
  flags: {},
  async run(cli, _flags, args) {
    const [from, to] = args.map((name) => name.trim()) as [string, string];
    if (from === "" || to === "") throw new StatusError(1, "Error: Neither old nor new names may be empty");
    const client = await cli.client();
    try {
      await client.containers.rename(from, to);
    } catch (error) {
      throw new StatusError(1, `${daemonMessage(error)}\nError: failed to rename container named ${from}`);
    }
  },
});
