import { command, exactly } from "../../command.ts";
import { CHECKPOINT_DIR } from "./create.ts";

export default command({
  use: "[OPTIONS] CONTAINER CHECKPOINT",
  short: "Remove a checkpoint",
  args: exactly(2),
  flags: { "checkpoint-dir": CHECKPOINT_DIR },
  async run(cli, flags, [container, checkpoint]) {
    const client = await cli.client();
    await client.containers.checkpoints.remove(container!, checkpoint!, flags["checkpoint-dir"] || undefined);
  },
});
