import { atLeast, command } from "../command.ts";
import { createContainer, parseOrFail } from "../container/create.ts";
import { containerFlags } from "../container/options.ts";

export default command({
  use: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
  short: "Create a new container",
  args: atLeast(1),
  flags: containerFlags,
  interspersed: false,
  async run(cli, flags, args) {
    const parsed = parseOrFail(cli, flags, args);
    cli.out(`${await createContainer(cli, flags, parsed)}\n`);
    return 0;
  },
});
