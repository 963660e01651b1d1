import { writeConfig } from "../../client/index.ts";
import { messageOf } from "../../lib/errors.ts";
import { atMost, command } from "../command.ts";
import { eraseCredentials, hostOf, INDEX_SERVER } from "../credentials.ts";

export default command({
  use: "[SERVER]",
  short: "Log out from a registry",
  args: atMost(1),
  flags: {},
  async run(cli, _flags, args) {
    const server = args[0] === undefined || hostOf(args[0]) === "docker.io" ? INDEX_SERVER : hostOf(args[0]);
    cli.out(`Removing login credentials for ${server}\n`);
    const config = { ...cli.config, auths: { ...cli.config.auths } };
    const before = Object.keys(config.auths).length;
    try {
      await eraseCredentials(config, server);
    } catch (error) {
      cli.err(`WARNING: could not erase credentials:\n${server}: ${messageOf(error)}\n`);
    }
    if (Object.keys(config.auths).length !== before) writeConfig(cli.configDir, config);
  },
});
