import { jsonLines, type ProgressMessage } from "../../client/index.ts";
import { command, none } from "../command.ts";
import { openSource } from "../files.ts";
import { bool, string } from "../flags.ts";
import { platformQuery } from "../platform.ts";
import { showProgress } from "../terminal/progress.ts";
import { terminalWidth } from "./pull.ts";

export default command({
  use: "[OPTIONS]",
  short: "Load an image from a tar archive or STDIN",
  args: none,
  flags: {
    input: string("i", "Read from tar archive file, instead of STDIN"),
    platform: string("", 'Load only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")'),
    quiet: bool("q", "Suppress the load output"),
  },
  async run(cli, flags) {
    if (flags.input === "" && cli.isTty(0)) throw new Error("requested load from stdin, but stdin is empty");
    let source: AsyncIterable<Uint8Array>;
    try {
      source = openSource(flags.input);
    } catch {
      throw new Error(`open ${flags.input}: no such file or directory`);
    }
    const terminal = cli.isTty(1);
    const client = await cli.client();
    const response = await client.images.load(source, { quiet: flags.quiet || !terminal, platform: platformQuery(flags.platform) });
    if (!response.headers["content-type"]?.startsWith("application/json")) {
      for await (const chunk of response.body) cli.out(chunk);
      return 0;
    }
    await showProgress(jsonLines<ProgressMessage>(response), { write: cli.out, terminal, width: await terminalWidth(1) });
    return 0;
  },
});
