import { command, exactly } from "../../command.ts";
import { string, strings } from "../../flags.ts";
import { createStore, listReference } from "../../manifest/store.ts";
import { fullString } from "../../reference.ts";

/** What Go knows (`go tool dist list`, and docker's list before it). */
const PLATFORMS: Record<string, string> = {
  aix: "ppc64",
  android: "386 amd64 arm arm64",
  darwin: "386 amd64 arm arm64",
  dragonfly: "amd64",
  freebsd: "386 amd64 arm arm64",
  illumos: "amd64",
  js: "wasm",
  linux: "386 amd64 arm arm64 loong64 ppc64 ppc64le mips mipsle mips64 mips64le riscv64 s390x",
  netbsd: "386 amd64 arm arm64",
  openbsd: "386 amd64 arm arm64",
  plan9: "386 amd64 arm",
  solaris: "amd64",
  windows: "386 amd64 arm arm64",
};

export default command({
  use: "[OPTIONS] MANIFEST_LIST MANIFEST",
  short: "Add additional information to a local image manifest",
  args: exactly(2),
  flags: {
    arch: string("", "Set architecture"),
    os: string("", "Set operating system"),
    "os-features": strings("", "Set operating system feature"),
    "os-version": string("", "Set operating system version"),
    variant: string("", "Set architecture variant"),
  },
  async run(cli, flags, args) {
    const [list, image] = args.map(listReference) as [ReturnType<typeof listReference>, ReturnType<typeof listReference>];
    const store = createStore(cli.configDir);
    const manifest = store.get(list, image);
    if (!manifest) throw new Error(`manifest for image ${fullString(image)} does not exist in ${fullString(list)}`);
    const platform = { architecture: "", os: "", ...manifest.Descriptor.platform };
    if (flags.os) platform.os = flags.os;
    if (flags.arch) platform.architecture = flags.arch;
    const features = flags["os-features"].filter(Boolean);
    if (features.length > 0) platform["os.features"] = [...new Set([...(platform["os.features"] ?? []), ...features])];
    if (flags.variant) platform.variant = flags.variant;
    if (flags["os-version"]) platform["os.version"] = flags["os-version"];
    if (!PLATFORMS[platform.os]?.split(" ").includes(platform.architecture))
      throw new Error(`manifest entry for image has unsupported os/arch combination: ${flags.os}/${flags.arch}`);
    const { ordered } = await import("../../manifest/remote.ts");
    manifest.Descriptor.platform = ordered(platform);
    store.save(list, image, manifest);
  },
});
