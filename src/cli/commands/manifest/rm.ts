import { atLeast, command } from "../../command.ts";
import { createStore, listReference } from "../../manifest/store.ts";
import { fullString } from "../../reference.ts";

export default command({
  use: "MANIFEST_LIST [MANIFEST_LIST...]",
  short: "Delete one or more manifest lists from local storage",
  args: atLeast(1),
  flags: {},
  async run(cli, _flags, args) {
    const store = createStore(cli.configDir);
    const missing: string[] = [];
    for (const name of args) {
      const list = listReference(name);
      if (store.list(list)?.length) store.remove(list);
      else missing.push(`No such manifest: ${fullString(list)}`);
    }
    if (missing.length > 0) throw new Error(missing.join("\n"));
  },
});
