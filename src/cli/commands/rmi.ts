import { isApiFailure } from "../../client/index.ts";
import { atLeast, command, StatusError } from "../command.ts";
import { bool, strings } from "../flags.ts";
import { daemonMessage } from "../index.ts";
import { platformQuery } from "../platform.ts";

export default command({
  use: "[OPTIONS] IMAGE [IMAGE...]",
  short: "Remove one or more images",
  args: atLeast(1),
  flags: {
    force: bool("f", "Force removal of the image"),
    "no-prune": bool("", "Do not delete untagged parents"),
    platform: strings("", 'Remove only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")'),
  },
  async run(cli, flags, args) {
    const client = await cli.client();
    const failures: string[] = [];
    let fatal = false;
    for (const name of args) {
      try {
        const items = await client.images.remove(name, {
          force: flags.force,
          noprune: flags["no-prune"],
          platforms: flags.platform.map((p) => platformQuery(p)!),
        });
        cli.out(items.map((item) => (item.Deleted ? `Deleted: ${item.Deleted}\n` : `Untagged: ${item.Untagged}\n`)).join(""));
      } catch (error) {
        if (!(isApiFailure(error) && error.status === 404)) fatal = true;
        failures.push(daemonMessage(error));
      }
    }
    if (failures.length === 0) return 0;
    if (flags.force && !fatal) {
      cli.err(`${failures.join("\n")}\n`);
      return 0;
    }
    throw new StatusError(1, failures.join("\n"));
  },
});
