import { command, exactly } from "../../command.ts";
import { bool } from "../../flags.ts";
import { createStore, listReference } from "../../manifest/store.ts";
import { familiarName, fullString, parseReference } from "../../reference.ts";

export default command({
  use: "[OPTIONS] MANIFEST_LIST",
  short: "Push a manifest list to a repository",
  args: exactly(1),
  flags: {
    insecure: bool("", "Allow push to an insecure registry"),
    purge: bool("p", "Remove the local manifest list after push"),
  },
  async run(cli, flags, [name]) {
    const list = listReference(name!);
    const store = createStore(cli.configDir);
    const manifests = store.list(list);
    if (!manifests?.length) throw new Error(`No such manifest: ${fullString(list)}`);
    const { listBytes, open } = await import("../../manifest/remote.ts");
    const { digestOf, parseManifest } = await import("../../../oci/index.ts");
    const target = await open(cli, list, flags.insecure, "push");
    const named = familiarName(list);
    for (const { Ref, Descriptor, Raw } of manifests) {
      const from = parseReference(Ref);
      if (from.domain !== list.domain)
        throw new Error(`cannot use source images from a different registry than the target image: ${from.domain} != ${list.domain}`);
      const bytes = Buffer.from(Raw, "base64");
      const { manifest } = parseManifest(bytes, Descriptor.mediaType);
      if (from.path !== list.path) {
        const source = await open(cli, from, flags.insecure);
        for (const blob of [manifest!.config, ...manifest!.layers]) await target.push(blob, () => source.stream(blob), { from: from.path });
      }
      const digest = await target.pushManifest(Descriptor, bytes, undefined);
      cli.out(`Pushed ref ${named}@${digest} with digest: ${digest}\n`);
    }
    const { mediaType, bytes } = listBytes(manifests);
    const descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length };
    cli.out(`${await target.pushManifest(descriptor, bytes, list.tag)}\n`);
    if (flags.purge) store.remove(list);
  },
});
