import { command, exactly } from "../../command.ts";
import { bool, string } from "../../flags.ts";

export const CHECKPOINT_DIR = string("", "Use a custom checkpoint storage directory");

export default command({
  use: "[OPTIONS] CONTAINER CHECKPOINT",
  short: "Create a checkpoint from a running container",
  args: exactly(2),
  flags: {
    "checkpoint-dir": CHECKPOINT_DIR,
    "leave-running": bool("", "Leave the container running after checkpoint"),
  },
  async run(cli, flags, [container, checkpoint]) {
    const client = await cli.client();
    const request = { CheckpointID: checkpoint!, CheckpointDir: flags["checkpoint-dir"], Exit: !flags["leave-running"] };
    await client.containers.checkpoints.create(container!, request);
    cli.out(`${checkpoint}\n`);
  },
});
