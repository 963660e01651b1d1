import { command } from "../command.ts";
import { bool, list, string } from "../flags.ts";
import { familiarName, parseReference } from "../reference.ts";

export default command({
  use: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
  short: "Create a new image from a container's changes",
  args: [1, 2],
  flags: {
    author: string("a", 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")'),
    change: list("c", "Apply Dockerfile instruction to the created image"),
    message: string("m", "Commit message"),
    pause: bool("p", "Pause container during commit", true),
  },
  async run(cli, flags, args) {
    const client = await cli.client();
    const reference = args[1] ? parseReference(args[1]) : undefined;
    if (reference?.digest) throw new Error("refusing to create a tag with a digest reference");
    const { Id } = await client.containers.commit({
      container: args[0]!,
      ...(reference ? { repo: familiarName(reference), tag: reference.tag ?? "latest" } : {}),
      comment: flags.message,
      author: flags.author,
      changes: flags.change,
      pause: flags.pause,
    });
    cli.out(`${Id}\n`);
  },
});
