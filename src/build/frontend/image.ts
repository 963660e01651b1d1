// The config that a stage's state makes of its tree: what an exporter completes with the layers' digests.
import type { StageState } from "./state.ts";

/** JSON of an image config; layers are the exporter's to fill in, as is when it was made. */
export function imageConfig(state: StageState): Uint8Array {
  const { os, architecture, variant, "os.version": version, "os.features": features } = state.platform;
  return Buffer.from(
    JSON.stringify({
      architecture,
      ...(variant ? { variant } : {}),
      os,
      ...(version ? { "os.version": version } : {}),
      ...(features?.length ? { "os.features": features } : {}),
      ...(state.author ? { author: state.author } : {}),
      config: state.config,
      rootfs: { type: "layers", diff_ids: [] },
      history: state.history.map(({ entry }) => entry),
    }),
  );
}
