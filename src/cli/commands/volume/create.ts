import { atMost, command } from "../../command.ts";
import { checkLabel } from "../../container/values.ts";
import { list, map, string } from "../../flags.ts";

export default command({
  use: "[OPTIONS] [VOLUME]",
  short: "Create a volume",
  args: atMost(1),
  flags: {
    driver: string("d", "Specify volume driver name", "local"),
    label: list("", "Set metadata for a volume", checkLabel),
    name: { ...string("", "Specify volume name"), hidden: true },
    opt: map("o", "Set driver specific options"),
  },
  async run(cli, flags, args) {
    if (args.length === 1 && flags.name !== "")
      throw new Error("conflicting options: cannot specify a volume-name through both --name and as a positional arg");
    const labels = Object.fromEntries(
      flags.label.map((label) => {
        const at = label.indexOf("=");
        return at < 0 ? [label, ""] : [label.slice(0, at), label.slice(at + 1)];
      }),
    );
    const client = await cli.client();
    const volume = await client.volumes.create({
      Name: args[0] ?? flags.name,
      Driver: flags.driver,
      DriverOpts: flags.opt,
      Labels: labels,
    });
    cli.out(`${volume.Name}\n`);
  },
});
