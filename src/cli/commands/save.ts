import { atLeast, command } from "../command.ts";
import { checkOutput, saveBody } from "../files.ts";
import { string } from "../flags.ts";
import { platformQuery } from "../platform.ts";

export default command({
  use: "[OPTIONS] IMAGE [IMAGE...]",
  short: "Save one or more images to a tar archive (streamed to STDOUT by default)",
  args: atLeast(1),
  flags: {
    output: string("o", "Write to a file, instead of STDOUT"),
    platform: string("", 'Save only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")'),
  },
  async run(cli, flags, args) {
    if (flags.output === "" && cli.isTty(1)) throw new Error("cowardly refusing to save to a terminal. Use the -o flag or redirect");
    if (flags.output !== "") checkOutput(flags.output);
    const client = await cli.client();
    await saveBody(cli, (await client.images.save(args, { platform: platformQuery(flags.platform) })).body, flags.output);
  },
});
