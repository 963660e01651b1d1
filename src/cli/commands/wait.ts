import { atLeast, command } from "../command.ts";
import { eachInTurn } from "../each.ts";

export default command({
  use: "CONTAINER [CONTAINER...]",
  short: "Block until one or more containers stop, then print their exit codes",
  args: atLeast(1),
  flags: {},
  async run(cli, _flags, args) {
    const client = await cli.client();
    return eachInTurn(cli, args, async (name) => {
      const exited = await client.containers.wait(name);
      const { StatusCode, Error: failure } = await exited();
      if (failure?.Message) throw new Error(failure.Message);
      return `${StatusCode}\n`;
    });
  },
});
