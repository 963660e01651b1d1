import { atLeast, command } from "../command.ts";
import { openSource } from "../files.ts";
import { list, string } from "../flags.ts";
import { parseReference } from "../reference.ts";
import { showProgress } from "../terminal/progress.ts";
import { terminalWidth } from "./pull.ts";

export default command({
  use: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
  short: "Import the contents from a tarball to create a filesystem image",
  args: atLeast(1),
  flags: {
    change: list("c", "Apply Dockerfile instruction to the created image"),
    message: string("m", "Set commit message for imported image"),
    platform: string("", "Set platform if server is multi-platform capable"),
  },
  async run(cli, flags, args) {
    const [source, name] = args as [string, string?];
    if (name) parseReference(name);
    const url = /^https?:\/\//.test(source);
    let body: AsyncIterable<Uint8Array> | undefined;
    if (!url) {
      try {
        body = openSource(source);
      } catch {
        throw new Error(`open ${source}: no such file or directory`);
      }
    }
    const client = await cli.client();
    const messages = await client.images.import(
      {
        fromSrc: url ? source : "-",
        repo: name ?? "",
        message: flags.message,
        changes: flags.change,
        platform: flags.platform || undefined,
      },
      body,
    );
    await showProgress(messages, { write: cli.out, terminal: cli.isTty(1), width: await terminalWidth(1) });
  },
});
