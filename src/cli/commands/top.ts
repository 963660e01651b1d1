import { atLeast, command } from "../command.ts";
import { align } from "../table.ts";

export default command({
  use: "CONTAINER [ps OPTIONS]",
  short: "Display the running processes of a container",
  args: atLeast(1),
  flags: {},
  interspersed: false,
  async run(cli, _flags, args) {
    const client = await cli.client();
    const { Titles = [], Processes = [] } = await client.containers.top(args[0]!, args.length > 1 ? args.slice(1).join(" ") : undefined);
    cli.out(align([Titles, ...Processes].map((cells) => `${cells.join("\t")}\n`).join(""), { minWidth: 20, padding: 3 }));
  },
});
