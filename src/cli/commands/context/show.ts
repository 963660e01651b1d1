import { command, none } from "../../command.ts";

export default command({
  use: "",
  short: "Print the name of the current context",
  args: none,
  flags: {},
  async run(cli) {
    cli.out(`${cli.contextName()}\n`);
  },
});
