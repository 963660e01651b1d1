import { command, exactly } from "../command.ts";
import { registryAuth } from "../credentials.ts";
import { bool, string } from "../flags.ts";
import { platformQuery } from "../platform.ts";
import { familiarName, fullString, parseReference, withTag } from "../reference.ts";
import { showProgress } from "../terminal/progress.ts";
import { terminalWidth } from "./pull.ts";

export default command({
  use: "[OPTIONS] NAME[:TAG]",
  short: "Upload an image to a registry",
  args: exactly(1),
  flags: {
    "all-tags": bool("a", "Push all tags of an image to the repository"),
    "disable-content-trust": bool("", "Skip image signing", true),
    platform: string("", "Push a platform-specific manifest as a single-platform image to the registry"),
    quiet: bool("q", "Suppress verbose output"),
  },
  async run(cli, flags, args) {
    const given = parseReference(args[0]!);
    if (flags["all-tags"] && given.tag) throw new Error("tag can't be used with --all-tags/-a");
    const reference = flags["all-tags"] ? given : withTag(given);
    if (!flags["all-tags"] && !given.tag && !given.digest && !flags.quiet) cli.out("Using default tag: latest\n");
    const client = await cli.client();
    const auth = (await registryAuth(cli.config, reference.domain)) ?? "";
    const messages = await client.images.push(
      familiarName(reference),
      { tag: reference.tag, platform: platformQuery(flags.platform) },
      auth,
    );
    await showProgress(messages, { write: flags.quiet ? () => {} : cli.out, terminal: cli.isTty(1), width: await terminalWidth(1) });
    if (flags.quiet) cli.out(`${fullString(reference)}\n`);
    return 0;
  },
});
