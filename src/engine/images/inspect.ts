// GET /images/{name}/json and /history

import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { ImageConfig, ImageHistoryResponseItem, ImageInspect } from "../../api/types.ts";
import { notFound } from "../../lib/errors.ts";
import { formatPlatform, type Platform } from "../../oci/index.ts";
import { CONFIG_DEFAULTS } from "../containers/inspect.ts";
import type { CatalogueEntry, Content } from "./catalogue.ts";
import type { Core } from "./core.ts";
import { createdOf, shownReferences } from "./list.ts";
import { imageFor } from "./save.ts";
import { imageSize, layerSizes } from "./sizes.ts";

/** The image that a name means, of a platform where one is said. */
async function contentOf(core: Core, entry: CatalogueEntry, name: string, platform: Platform | undefined): Promise<Content> {
  if (!platform) return entry.content;
  const content = await core.catalogue.open(await imageFor(core, entry, name, platform));
  if (!content) throw notFound(`the image of ${name} for the platform ${formatPlatform(platform)} is not there`);
  return content;
}

/** Of the container that the image was committed from: gone from the API with 1.45, and empty for long before. */
const NO_CONTAINER = { Container: "", ContainerConfig: { ...CONFIG_DEFAULTS, Env: null, Labels: null } };

/** Whether a client takes the newest version and reads what is not there any more: docker-compose 1.x can't make a service anew without it. */
export const needsContainerConfig = (agent: string | undefined): boolean => agent?.startsWith("docker-compose/1.") ?? false;

export async function inspect(core: Core, name: string, version: number, platform?: Platform, old = version < 45): Promise<ImageInspect> {
  const entry = await core.catalogue.find(name);
  const content = await contentOf(core, entry, name, platform);
  const { config, target } = content;
  const { tags, digests } = shownReferences(entry);
  const size = await imageSize(core, config.diffIds);
  let tagged = 0;
  for (const image of entry.names) if (image.updatedAt) tagged = Math.max(tagged, timestampMs(image.updatedAt));
  const out: ImageInspect & { Parent?: string; DockerVersion?: string; VirtualSize?: number } = {
    Id: content.manifest.config.digest,
    RepoTags: tags,
    RepoDigests: digests,
    Comment: config.comment ?? config.history.at(-1)?.comment ?? "",
    Created: config.created ?? (version >= 44 ? "" : "0001-01-01T00:00:00Z"),
    Author: config.author ?? "",
    Config: config.config as ImageConfig,
    Architecture: config.architecture,
    Os: config.os,
    Size: size,
    GraphDriver: { Name: "overlayfs", Data: null as never },
    RootFS: { Type: "layers", ...(config.diffIds.length ? { Layers: config.diffIds } : {}) },
    Metadata: { LastTagTime: new Date(tagged).toISOString() },
  };
  if (config.variant) out.Variant = config.variant;
  if (config["os.version"]) out.OsVersion = config["os.version"];
  if (version < 50) {
    out.Parent = "";
    out.DockerVersion = typeof config.raw.docker_version === "string" ? config.raw.docker_version : "";
  }
  if (old) Object.assign(out, NO_CONTAINER);
  if (version < 44) out.VirtualSize = size;
  if (version >= 48) out.Descriptor = { mediaType: target.mediaType, digest: target.digest, size: target.size };
  return out;
}

export async function history(core: Core, name: string, platform?: Platform): Promise<ImageHistoryResponseItem[]> {
  const entry = await core.catalogue.find(name);
  const { config, chain, manifest } = await contentOf(core, entry, name, platform);
  const id = manifest.config.digest;
  await imageSize(core, config.diffIds);
  const sizes = await layerSizes(core);
  const { tags } = shownReferences(entry);
  const out: ImageHistoryResponseItem[] = [];
  let layer = 0;
  for (const step of config.history) {
    let size = 0;
    if (!step.empty_layer && layer < chain.length) {
      size = (sizes.get(chain[layer]!) ?? 0) - (layer > 0 ? (sizes.get(chain[layer - 1]!) ?? 0) : 0);
      layer++;
    }
    const created = Date.parse(step.created ?? "");
    out.unshift({
      Id: "<missing>",
      Created: Number.isNaN(created) ? 0 : Math.floor(created / 1000),
      CreatedBy: step.created_by ?? "",
      Tags: null as unknown as string[],
      Size: size,
      Comment: step.comment ?? "",
    });
  }
  if (out.length === 0) {
    const size = await imageSize(core, config.diffIds);
    out.push({ Id: id, Created: createdOf(entry), CreatedBy: "", Tags: tags, Size: size, Comment: config.comment ?? "" });
  }
  out[0]!.Id = id;
  out[0]!.Tags = tags.length ? tags : (null as unknown as string[]);
  return out;
}
