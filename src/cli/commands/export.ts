import { command, exactly } from "../command.ts";
import { checkOutput, saveBody } from "../files.ts";
import { string } from "../flags.ts";

export default command({
  use: "[OPTIONS] CONTAINER",
  short: "Export a container's filesystem as a tar archive",
  args: exactly(1),
  flags: { output: string("o", "Write to a file, instead of STDOUT") },
  async run(cli, flags, args) {
    if (flags.output === "" && cli.isTty(1)) throw new Error("cowardly refusing to save to a terminal. Use the -o flag or redirect");
    if (flags.output !== "") checkOutput(flags.output);
    const client = await cli.client();
    await saveBody(cli, (await client.containers.export(args[0]!)).body, flags.output);
  },
});
