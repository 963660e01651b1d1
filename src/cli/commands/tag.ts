import { command, exactly } from "../command.ts";
import { familiarName, parseReference, type Reference } from "../reference.ts";

export default command({
  use: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
  short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
  args: exactly(2),
  flags: {},
  async run(cli, _flags, args) {
    const [source, target] = args as [string, string];
    let reference: Reference;
    try {
      reference = parseReference(target);
    } catch (error) {
      throw new Error(`Error parsing reference: ${JSON.stringify(target)} is not a valid repository/tag: ${(error as Error).message}`);
    }
    if (reference.digest) throw new Error("refusing to create a tag with a digest reference");
    const client = await cli.client();
    await client.images.tag(source, { repo: familiarName(reference), tag: reference.tag ?? "latest" });
  },
});
