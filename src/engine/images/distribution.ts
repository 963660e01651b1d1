// GET /distribution/{name}/json: what a registry has under a name, without pulling it.
import type { DistributionInspect, OCIPlatform } from "../../api/types.ts";
import { type Credentials, openRepository, pullFailure } from "../../distribution/index.ts";
import { MAX_CONFIG, type Platform, parseImageConfig, parseManifest, parseTagged } from "../../oci/index.ts";
import type { Core } from "./core.ts";

export async function distribution(
  core: Core,
  name: string,
  credentials: Credentials | undefined,
  signal: AbortSignal,
): Promise<DistributionInspect> {
  const reference = parseTagged(name);
  const repository = openRepository(reference, core.registry, credentials);
  try {
    const { descriptor, bytes } = await repository.manifest(reference.digest ?? reference.tag!, signal);
    const parsed = parseManifest(bytes, descriptor.mediaType);
    let platforms: (Platform | undefined)[];
    if (parsed.index) platforms = parsed.index.manifests.map((entry) => entry.platform);
    else {
      const { os, architecture, variant } = parseImageConfig(await repository.blob(parsed.manifest.config, MAX_CONFIG, signal));
      platforms = [{ os, architecture, ...(variant ? { variant } : {}) }];
    }
    return {
      Descriptor: { mediaType: (parsed.index ?? parsed.manifest).mediaType, digest: descriptor.digest, size: descriptor.size },
      Platforms: platforms.filter((platform): platform is Platform => platform !== undefined) as OCIPlatform[],
    };
  } catch (error) {
    throw pullFailure(error, reference);
  }
}
