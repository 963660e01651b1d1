import { openContext } from "../build/context.ts";
import { flags } from "../build/flags.ts";
import { command, exactly } from "../command.ts";

export default command({
  use: "[OPTIONS] PATH | URL | -",
  short: "Build an image from a Dockerfile",
  args: exactly(1),
  flags,
  async run(cli, given, [argument = ""]) {
    if (given.squash)
      throw new Error("--squash is not supported: it would give up the sharing of layers between images; use a multi-stage build instead");
    if (given["on-failure"] && given["on-failure"] !== "shell")
      throw new Error(`invalid argument ${JSON.stringify(given["on-failure"])} for --on-failure: there is "shell"`);
    const client = await cli.client();
    // What most builds need is loaded while the engine answers.
    const asking = hasBuildKit(cli.env.DOCKER_BUILDKIT, client);
    asking.catch(() => {});
    const loading = import("../build/buildkit.ts");
    const context = await openContext(argument, given.file);
    try {
      if (await asking) {
        const { buildWithBuildKit } = await loading;
        return await buildWithBuildKit(cli, client, given, context);
      }
      const { buildClassic } = await import("../build/classic.ts");
      return await buildClassic(cli, client, given, context);
    } finally {
      context.remove();
    }
  },
});

/** DOCKER_BUILDKIT decides; without it, what the engine says of itself: ours, and every dockerd since 2018, has BuildKit. */
async function hasBuildKit(
  wish: string | undefined,
  client: {
    caller: { done(method: string, path: string, call?: { unversioned?: boolean }): Promise<void>; seen(): Record<string, string> };
  },
): Promise<boolean> {
  if (wish === "0" || wish === "false") return false;
  if (wish === "1" || wish === "true") return true;
  await client.caller.done("GET", "/_ping", { unversioned: true });
  const { server = "", "builder-version": version } = client.caller.seen();
  return version === "2" || /^jubako/i.test(server);
}
