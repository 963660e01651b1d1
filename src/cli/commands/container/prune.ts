import { command, none } from "../../command.ts";
import { confirm, describe, pruneFilters, pruneFlags, reclaimed } from "../../prune.ts";

export default command({
  use: "[OPTIONS]",
  short: "Remove all stopped containers",
  args: none,
  flags: pruneFlags,
  async run(cli, flags) {
    if (!flags.force && !(await confirm(cli, "WARNING! This will remove all stopped containers."))) return;
    const client = await cli.client();
    const report = await client.containers.prune(pruneFilters(cli, flags.filter));
    cli.out(describe("Deleted Containers", report.ContainersDeleted) + reclaimed(report.SpaceReclaimed ?? 0));
  },
});
