import { loadContexts, writeConfig } from "../../../client/index.ts";
import { command, exactly } from "../../command.ts";

export default command({
  use: "CONTEXT",
  short: "Set the current docker context",
  args: exactly(1),
  flags: {},
  async run(cli, _flags, args) {
    const name = args[0]!;
    if (name !== "default") (await loadContexts()).readContext(cli.configDir, name);
    const { currentContext, ...rest } = cli.config;
    if ((currentContext ?? "default") !== name) writeConfig(cli.configDir, name === "default" ? rest : { ...rest, currentContext: name });
    cli.out(`${name}\n`);
    cli.err(`Current context is now ${JSON.stringify(name)}\n`);
    if (name !== "default" && cli.env.DOCKER_HOST) {
      cli.err("Warning: DOCKER_HOST environment variable overrides the active context. To use ");
      cli.err(`${JSON.stringify(name)}, either set the global --context flag, or unset DOCKER_HOST environment variable.\n`);
    }
  },
});
