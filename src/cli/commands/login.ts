import { any, command, StatusError } from "../command.ts";

export default command({
  use: "",
  short: "",
  args: any,
  flags: {},
  async run(cli) {
    throw new StatusError(1, `${cli.path} is not there yet`);
  },
});
