import { minor } from "../../../client/index.ts";
import { command, none } from "../../command.ts";
import { bool } from "../../flags.ts";
import { confirm, describe, pruneFilters, pruneFlags, reclaimed } from "../../prune.ts";

export default command({
  use: "[OPTIONS]",
  short: "Remove unused local volumes",
  args: none,
  flags: { ...pruneFlags, all: bool("a", "Remove all unused volumes, not just anonymous ones") },
  async run(cli, flags) {
    const client = await cli.client();
    const version = await client.version();
    const filters = pruneFilters(cli, flags.filter);
    let warning = "WARNING! This will remove all local volumes not used by at least one container.";
    if (minor(version) >= 42) {
      if (flags.all) {
        if (filters.all) throw new Error("conflicting options: cannot specify both --all and --filter all=1");
        filters.all = ["true"];
      } else {
        warning = "WARNING! This will remove anonymous local volumes not used by at least one container.";
      }
    } else if (flags.all) {
      throw new Error(`"--all" requires API version 1.42, but the Docker daemon API version is ${version}`);
    }
    if (!flags.force && !(await confirm(cli, warning))) return;
    const report = await client.volumes.prune(filters);
    cli.out(describe("Deleted Volumes", report.VolumesDeleted) + reclaimed(report.SpaceReclaimed ?? 0));
  },
});
