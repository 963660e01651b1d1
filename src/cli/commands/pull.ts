import { type Cli, command, exactly } from "../command.ts";
import { registryAuth } from "../credentials.ts";
import { bool, string } from "../flags.ts";
import { isTerminal } from "../output.ts";
import { familiarName, fullString, parseReference, withTag } from "../reference.ts";
import { showProgress } from "../terminal/progress.ts";

export default command({
  use: "[OPTIONS] NAME[:TAG|@DIGEST]",
  short: "Download an image from a registry",
  args: exactly(1),
  flags: {
    "all-tags": bool("a", "Download all tagged images in the repository"),
    "disable-content-trust": bool("", "Skip image verification", true),
    platform: string("", "Set platform if server is multi-platform capable"),
    quiet: bool("q", "Suppress verbose output"),
  },
  async run(cli, flags, args) {
    const given = parseReference(args[0]!);
    if (flags["all-tags"] && (given.tag || given.digest)) throw new Error("tag can't be used with --all-tags/-a");
    const reference = flags["all-tags"] ? given : withTag(given);
    if (!flags["all-tags"] && !given.tag && !given.digest && !flags.quiet) cli.out("Using default tag: latest\n");
    await pullImage(cli, args[0]!, { platform: flags.platform || undefined, quiet: flags.quiet, all: flags["all-tags"] });
    cli.out(`${fullString(reference)}\n`);
    return 0;
  },
});

export interface PullOptions {
  platform: string | undefined;
  quiet: boolean;
  all?: boolean;
  toStderr?: boolean;
}

/** Pulls with the user's credentials and shows how it goes. */
export async function pullImage(cli: Cli, image: string, options: PullOptions): Promise<void> {
  const client = await cli.client();
  const parsed = parseReference(image);
  const reference = options.all ? parsed : withTag(parsed);
  const auth = await registryAuth(cli.config, reference.domain);
  const messages = await client.images.pull(
    { fromImage: familiarName(reference), tag: reference.digest ?? reference.tag, platform: options.platform },
    auth,
  );
  const write = options.toStderr ? cli.err : cli.out;
  await showProgress(messages, {
    write: options.quiet ? () => {} : write,
    terminal: cli.isTty(options.toStderr ? 2 : 1),
    width: await terminalWidth(options.toStderr ? 2 : 1),
  });
}

export async function terminalWidth(fd: 1 | 2): Promise<number | undefined> {
  if (!isTerminal(fd)) return undefined;
  const { terminalSize } = await import("../terminal/tty.ts");
  return terminalSize(fd)?.w || undefined;
}
