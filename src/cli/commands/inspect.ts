import { isApiFailure } from "../../client/index.ts";
import { atLeast, command } from "../command.ts";
import { bool, string } from "../flags.ts";
import { fetchRaw, inspectAll } from "../inspect.ts";

const at = encodeURIComponent;
const imagePath = (name: string) => name.split("/").map(at).join("/");

/** In the order in which a name is looked for. */
const kinds: Record<string, (name: string) => string> = {
  container: (name) => `/containers/${at(name)}/json`,
  image: (name) => `/images/${imagePath(name)}/json`,
  network: (name) => `/networks/${at(name)}`,
  volume: (name) => `/volumes/${at(name)}`,
};
const swarm = ["config", "node", "plugin", "secret", "service", "task"];

export default command({
  use: "[OPTIONS] NAME|ID [NAME|ID...]",
  short: "Return low-level information on Docker objects",
  args: atLeast(1),
  flags: {
    format: string(
      "f",
      "Format output using a custom template:\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template",
    ),
    size: bool("s", "Display total file sizes if the type is container"),
    type: string("", "Only inspect objects of the given type"),
  },
  async run(cli, flags, args) {
    if (cli.changed.has("type") && flags.type === "")
      throw new Error(
        'type is empty: must be one of "config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume"',
      );
    if (flags.type !== "" && !(flags.type in kinds)) {
      if (swarm.includes(flags.type))
        throw new Error(`inspecting a ${flags.type} is not there: swarm mode and plugins are not part of this version`);
      throw new Error(
        `unknown type: ${JSON.stringify(flags.type)}: must be one of "config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume"`,
      );
    }
    const client = await cli.client();
    const wanted = flags.type === "" ? Object.keys(kinds) : [flags.type];
    return inspectAll(cli, args, flags.format, async (name) => {
      for (const kind of wanted) {
        try {
          return await fetchRaw(client, kinds[kind]!(name), kind === "container" && flags.size ? { size: true } : {});
        } catch (error) {
          const absent = isApiFailure(error) && (error.status === 404 || (error.status === 400 && wanted.length > 1));
          if (!absent || wanted.length === 1) throw error;
        }
      }
      throw new Error(`Error: No such object: ${name}`);
    });
  },
});
