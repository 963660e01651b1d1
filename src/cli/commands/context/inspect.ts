import { defaultHost, loadContexts } from "../../../client/index.ts";
import { any, type Cli, command } from "../../command.ts";
import { string } from "../../flags.ts";
import { inspectAll } from "../../inspect.ts";
import { json } from "../../template/index.ts";

export default command({
  use: "[OPTIONS] [CONTEXT] [CONTEXT...]",
  short: "Display detailed information on one or more contexts",
  args: any,
  flags: { format: string("f", "Format output using a custom template: 'json', or a Go template") },
  async run(cli, flags, args) {
    const names = args.length > 0 ? args : [cli.contextName()];
    return inspectAll(cli, names, flags.format, async (name) => json(await describe(cli, name), true));
  },
});

async function describe(cli: Cli, name: string): Promise<unknown> {
  if (name === "default") {
    return {
      Name: "default",
      Metadata: {},
      Endpoints: { docker: { Host: cli.env.DOCKER_HOST || defaultHost(), SkipTLSVerify: false } },
      TLSMaterial: {},
      Storage: { MetadataPath: "<IN MEMORY>", TLSPath: "<IN MEMORY>" },
    };
  }
  const { readContext } = await loadContexts();
  const context = readContext(cli.configDir, name);
  return {
    Name: context.name,
    Metadata: context.metadata,
    Endpoints: { docker: { Host: context.host, SkipTLSVerify: context.skipTlsVerify } },
    TLSMaterial: context.tlsFiles.length > 0 ? { docker: context.tlsFiles } : {},
    Storage: { MetadataPath: context.metaPath, TLSPath: context.tlsPath },
  };
}
