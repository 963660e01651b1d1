import { type Arguments, command } from "../../command.ts";
import { bool } from "../../flags.ts";
import { createStore, type ListedManifest, listReference } from "../../manifest/store.ts";
import { fullString } from "../../reference.ts";

const oneOrTwo: Arguments = [1, 2];

export default command({
  use: "[OPTIONS] [MANIFEST_LIST] MANIFEST",
  short: "Display an image manifest, or manifest list",
  args: oneOrTwo,
  flags: {
    insecure: bool("", "Allow communication with an insecure registry"),
    verbose: bool("v", "Output additional info including layers and platform"),
  },
  async run(cli, flags, args) {
    const store = createStore(cli.configDir);
    const reference = listReference(args.at(-1)!);
    const print = (value: unknown) => cli.out(`${JSON.stringify(value, null, "\t")}\n`);
    const one = (manifest: ListedManifest) => print(flags.verbose ? manifest : (manifest.SchemaV2Manifest ?? manifest.OCIManifest));
    if (args.length === 2) {
      const manifest = store.get(listReference(args[0]!), reference);
      if (!manifest) throw new Error(`No such manifest: ${fullString(reference)}`);
      return one(manifest);
    }
    const { fetchAny, listBytes } = await import("../../manifest/remote.ts");
    const local = store.list(reference);
    if (local?.length) return flags.verbose ? print(local) : cli.out(`${listBytes(local).bytes}\n`);
    const found = await fetchAny(cli, reference, flags.insecure);
    if ("one" in found) return one(found.one);
    if (flags.verbose) return print(await found.images());
    cli.out(`${JSON.stringify(JSON.parse(new TextDecoder().decode(found.bytes)), null, 3)}\n`);
  },
});
