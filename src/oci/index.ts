// The nouns of the three OCI specifications, and Docker's dialect of them: digest, reference, descriptor, manifest, index, image configuration,
// platform, runtime spec, layer. Pure types and functions, except for layers, which become files (applyLayer). It must never know where bytes come from
// (registry, content store), nor who runs what. No protocol at its door: functions. What it parses is hostile: sizes are bounded, errors are
// InvalidArgument with the field's name.
//
//   A reference names a manifest (or an index of manifests, one a platform); a manifest names a config and layers by descriptor; a descriptor is
//   media type, digest, size. The config lists the diff ids of the layers uncompressed; chain ids name the stacks of them.
//
//   const reference = parseTagged("busybox");                       // docker.io/library/busybox:latest
//   const { index } = parseManifest(bytes, mediaType);              // choosePlatform(index.manifests, hostPlatform())
//   const { manifest } = parseManifest(more, descriptor.mediaType);
//   const config = parseImageConfig(configBytes);                   // chainIds(config.diffIds)
//   const { diffId } = await applyLayer({ file, root, digest });    // one pass: hash, decompress, hash, extract; in a worker
export * from "./archive.ts";
export * from "./digest.ts";
export * from "./image-config.ts";
export { adoptParents } from "./layer/adopt.ts";
export { type ApplyOptions, applyLayer } from "./layer/apply.ts";
export { type Compression, detectCompression } from "./layer/decode.ts";
export { decompressed, plainHead } from "./layer/decompress.ts";
export { gzipped } from "./layer/gzip.ts";
export type { Stat as FileStat } from "./layer/kernel.ts";
export * as files from "./layer/kernel.ts";
export { createProgress, type Progress } from "./layer/progress.ts";
export { scanTar } from "./layer/scan.ts";
export { createTarReader, type TarEntry, type TarType } from "./layer/tar-reader.ts";
export { TAR_END, type TarHeader, tarEntry, tarHeader, tarOf, tarPadding } from "./layer/tar-writer.ts";
export type { Unpacked } from "./layer/unpack.ts";
export * from "./manifest.ts";
export * from "./platform.ts";
export * from "./reference.ts";
export type * from "./runtime-spec.ts";
