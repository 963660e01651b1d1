import { command, none } from "../../command.ts";
import { confirm, describe, pruneFilters, pruneFlags } from "../../prune.ts";

export default command({
  use: "[OPTIONS]",
  short: "Remove all unused networks",
  args: none,
  flags: pruneFlags,
  async run(cli, flags) {
    if (!flags.force && !(await confirm(cli, "WARNING! This will remove all custom networks not used by at least one container."))) return;
    const client = await cli.client();
    cli.out(describe("Deleted Networks", (await client.networks.prune(pruneFilters(cli, flags.filter))).NetworksDeleted));
  },
});
