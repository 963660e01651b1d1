import { isApiFailure } from "../../client/index.ts";
import { atLeast, command } from "../command.ts";
import { eachAtOnce } from "../each.ts";
import { bool } from "../flags.ts";
import { daemonMessage } from "../index.ts";

export default command({
  use: "[OPTIONS] CONTAINER [CONTAINER...]",
  short: "Remove one or more containers",
  args: atLeast(1),
  flags: {
    force: bool("f", "Force the removal of a running container (uses SIGKILL)"),
    link: bool("l", "Remove the specified link"),
    volumes: bool("v", "Remove anonymous volumes associated with the container"),
  },
  async run(cli, flags, args) {
    const client = await cli.client();
    const gone: string[] = [];
    const names = args.map((name) => name.replace(/^\/+|\/+$/g, ""));
    if (names.includes("")) throw new Error("container name cannot be empty");
    try {
      return await eachAtOnce(
        { ...cli, out: (text) => void (gone.includes(String(text).trimEnd()) || cli.out(text)) },
        names,
        async (name) => {
          try {
            await client.containers.remove(name, { v: flags.volumes, force: flags.force, link: flags.link });
          } catch (error) {
            // What is not there is as removed as it can be; it is only told.
            if (!flags.force || !isApiFailure(error) || error.status !== 404) throw error;
            cli.err(`${daemonMessage(error)}\n`);
            gone.push(name);
          }
        },
      );
    } finally {
      gone.length = 0;
    }
  },
});
