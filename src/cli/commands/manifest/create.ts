import { atLeast, command } from "../../command.ts";
import { bool } from "../../flags.ts";
import { createStore, listReference } from "../../manifest/store.ts";
import { fullString } from "../../reference.ts";

export default command({
  use: "MANIFEST_LIST MANIFEST [MANIFEST...]",
  short: "Create a local manifest list for annotating and pushing to a registry",
  args: atLeast(2),
  flags: {
    amend: bool("a", "Amend an existing manifest list"),
    insecure: bool("", "Allow communication with an insecure registry"),
  },
  async run(cli, flags, [name, ...images]) {
    const list = listReference(name!);
    const store = createStore(cli.configDir);
    if (!flags.amend && store.list(list)?.length) throw new Error("refusing to amend an existing manifest list with no --amend flag");
    const { fetchManifest } = await import("../../manifest/remote.ts");
    for (const image of images) {
      const reference = listReference(image);
      store.save(list, reference, store.get(list, reference) ?? (await fetchManifest(cli, reference, flags.insecure)));
    }
    cli.out(`Created manifest list ${fullString(list)}\n`);
  },
});
