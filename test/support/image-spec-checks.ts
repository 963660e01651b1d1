// What the OCI image specification 1.1 asks of documents (descriptor.md, manifest.md, image-index.md, config.md, image-layout.md), as far as it can be told from
// them alone; and whether an image layout in a directory is whole.
import { createHash } from "node:crypto";
import { createReadStream, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { createGunzip, createZstdDecompress } from "node:zlib";

type Json = Record<string, unknown>;

const MEDIA_TYPE = /^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$/;
const DIGEST = /^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;
const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const INDEX = "application/vnd.oci.image.index.v1+json";
const CONFIG = "application/vnd.oci.image.config.v1+json";
const DOCKER = /^application\/vnd\.docker\./;

/** What is wrong, each with its place; nothing where all is well. */
export type Complaints = string[];

const isObject = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value);

function createChecker(complaints: Complaints) {
  const say = (at: string, what: string) => void complaints.push(`${at}: ${what}`);
  const checker = {
    say,
    object(value: unknown, at: string): Json {
      if (isObject(value)) return value;
      say(at, "is no object");
      return {};
    },
    text(value: unknown, at: string, pattern = /^/): void {
      if (typeof value !== "string") say(at, "is no string");
      else if (!pattern.test(value)) say(at, `${JSON.stringify(value)} is out of its grammar`);
    },
    optional(value: unknown, at: string, check: (value: unknown, at: string) => void): void {
      if (value !== undefined) check(value, at);
    },
    list(value: unknown, at: string, each: (item: unknown, at: string) => void): void {
      if (!Array.isArray(value)) say(at, "is no list");
      else for (const [i, item] of value.entries()) each(item, `${at}[${i}]`);
    },
    map(value: unknown, at: string, each: (item: unknown, at: string) => void): void {
      for (const [key, item] of Object.entries(checker.object(value, at))) each(item, `${at}.${key}`);
    },
    strings: (value: unknown, at: string) => checker.list(value, at, checker.text),
    stringMap: (value: unknown, at: string) => checker.map(value, at, checker.text),
    orNull: (check: (value: unknown, at: string) => void) => (value: unknown, at: string) => value === null || check(value, at),
    flag(value: unknown, at: string): void {
      if (typeof value !== "boolean") say(at, "is no boolean");
    },
    time: (value: unknown, at: string) => checker.text(value, at, TIME),
    mediaType: (value: unknown, at: string) => checker.text(value, at, MEDIA_TYPE),
    descriptor(value: unknown, at: string): void {
      const json = checker.object(value, at);
      checker.mediaType(json.mediaType, `${at}.mediaType`);
      checker.text(json.digest, `${at}.digest`, DIGEST);
      if (!Number.isSafeInteger(json.size) || (json.size as number) < 0) say(`${at}.size`, "is no size");
      checker.optional(json.urls, `${at}.urls`, (urls, where) =>
        checker.list(urls, where, (url, place) => checker.text(url, place, /^[a-z][a-z0-9+.-]*:/)),
      );
      checker.optional(json.annotations, `${at}.annotations`, checker.stringMap);
      checker.optional(json.artifactType, `${at}.artifactType`, checker.mediaType);
      checker.optional(json.data, `${at}.data`, (data, where) => checker.text(data, where, /^[A-Za-z0-9+/]*={0,2}$/));
      checker.optional(json.platform, `${at}.platform`, checker.platform);
    },
    platform(value: unknown, at: string): void {
      const json = checker.object(value, at);
      checker.text(json.architecture, `${at}.architecture`, /./);
      checker.text(json.os, `${at}.os`, /./);
      for (const key of ["variant", "os.version"]) checker.optional(json[key], `${at}.${key}`, checker.text);
      checker.optional(json["os.features"], `${at}.os.features`, checker.strings);
    },
  };
  return checker;
}

function checkTop(json: Json, mediaType: string, at: string, complaints: Complaints): void {
  const check = createChecker(complaints);
  if (json.schemaVersion !== 2) check.say(`${at}.schemaVersion`, "is not 2");
  if (json.mediaType !== mediaType && !(mediaType === INDEX && json.mediaType === undefined))
    check.say(`${at}.mediaType`, `is not ${mediaType}`);
  check.optional(json.subject, `${at}.subject`, check.descriptor);
  check.optional(json.artifactType, `${at}.artifactType`, check.mediaType);
  check.optional(json.annotations, `${at}.annotations`, check.stringMap);
}

export function checkManifest(json: Json, at: string, complaints: Complaints): void {
  const check = createChecker(complaints);
  checkTop(json, MANIFEST, at, complaints);
  check.descriptor(json.config, `${at}.config`);
  check.list(json.layers, `${at}.layers`, (layer, where) => {
    check.descriptor(layer, where);
    if (isObject(layer) && DOCKER.test(String(layer.mediaType))) check.say(where, `${layer.mediaType} in an OCI manifest`);
  });
}

export function checkIndex(json: Json, at: string, complaints: Complaints): void {
  const check = createChecker(complaints);
  checkTop(json, INDEX, at, complaints);
  check.list(json.manifests, `${at}.manifests`, check.descriptor);
}

export function checkConfig(json: Json, at: string, complaints: Complaints): void {
  const check = createChecker(complaints);
  check.platform(json, at);
  check.optional(json.created, `${at}.created`, check.time);
  check.optional(json.author, `${at}.author`, check.text);
  const rootfs = check.object(json.rootfs, `${at}.rootfs`);
  if (rootfs.type !== "layers") check.say(`${at}.rootfs.type`, "is not layers");
  check.list(rootfs.diff_ids, `${at}.rootfs.diff_ids`, (id, where) => check.text(id, where, DIGEST));
  check.optional(json.config, `${at}.config`, (value, where) => {
    const config = check.object(value, where);
    for (const key of ["User", "WorkingDir", "StopSignal"]) check.optional(config[key], `${where}.${key}`, check.text);
    for (const key of ["ExposedPorts", "Volumes"])
      check.optional(
        config[key],
        `${where}.${key}`,
        check.orNull((map, place) => check.map(map, place, check.object)),
      );
    check.optional(
      config.Env,
      `${where}.Env`,
      check.orNull((env, place) => check.list(env, place, (one, spot) => check.text(one, spot, /^[^=]+=/))),
    );
    for (const key of ["Entrypoint", "Cmd"]) check.optional(config[key], `${where}.${key}`, check.orNull(check.strings));
    check.optional(config.Labels, `${where}.Labels`, check.orNull(check.stringMap));
    check.optional(config.ArgsEscaped, `${where}.ArgsEscaped`, check.flag);
  });
  let empty = 0;
  check.optional(json.history, `${at}.history`, (history, where) =>
    check.list(history, where, (item, place) => {
      const step = check.object(item, place);
      check.optional(step.created, `${place}.created`, check.time);
      for (const key of ["author", "created_by", "comment"]) check.optional(step[key], `${place}.${key}`, check.text);
      check.optional(step.empty_layer, `${place}.empty_layer`, check.flag);
      if (step.empty_layer === true) empty++;
    }),
  );
  if (
    Array.isArray(json.history) &&
    json.history.length > 0 &&
    Array.isArray(rootfs.diff_ids) &&
    json.history.length - empty !== rootfs.diff_ids.length
  )
    check.say(`${at}.history`, `has ${json.history.length - empty} layers, rootfs ${rootfs.diff_ids.length}`);
}

async function hashOf(path: string, mediaType: string): Promise<{ stored: string; plain: string }> {
  const digest = async (stream: AsyncIterable<unknown>) => {
    const hash = createHash("sha256");
    for await (const piece of stream) hash.update(piece as Uint8Array);
    return `sha256:${hash.digest("hex")}`;
  };
  const file = () => createReadStream(path);
  const unpacked = mediaType.endsWith("gzip")
    ? file().pipe(createGunzip())
    : mediaType.endsWith("zstd")
      ? file().pipe(createZstdDecompress())
      : file();
  return { stored: await digest(file()), plain: await digest(unpacked) };
}

/** Follows a layout's index to everything below; answers what is wrong, and what was seen by media type. */
export async function checkLayout(directory: string): Promise<{ complaints: Complaints; seen: Record<string, number> }> {
  const complaints: Complaints = [];
  const seen: Record<string, number> = {};
  const read = (path: string): Json => JSON.parse(readFileSync(join(directory, path), "utf8"));
  const blob = (digest: unknown) => `blobs/${String(digest).replace(":", "/")}`;
  if (read("oci-layout").imageLayoutVersion !== "1.0.0") complaints.push("oci-layout: imageLayoutVersion is not 1.0.0");
  const known = new Set<unknown>();
  const follow = async (value: unknown, at: string): Promise<void> => {
    const { mediaType, digest, size } = value as { mediaType: string; digest: string; size: number };
    if (known.has(digest)) return;
    known.add(digest);
    seen[mediaType] = (seen[mediaType] ?? 0) + 1;
    const path = join(directory, blob(digest));
    if (statSync(path).size !== size) complaints.push(`${at}: ${digest} is ${statSync(path).size} bytes long, not ${size}`);
    if ((await hashOf(path, "")).stored !== digest) complaints.push(`${at}: ${digest} is not the content's`);
    if (mediaType === INDEX) {
      const json = read(blob(digest));
      checkIndex(json, at, complaints);
      for (const [i, child] of (json.manifests as unknown[]).entries()) await follow(child, `${at}.manifests[${i}]`);
    } else if (mediaType === MANIFEST) {
      const json = read(blob(digest)) as { config: { mediaType: string; digest: string }; layers: { mediaType: string; digest: string }[] };
      checkManifest(json, at, complaints);
      await follow(json.config, `${at}.config`);
      for (const [i, layer] of json.layers.entries()) await follow(layer, `${at}.layers[${i}]`);
      if (json.config.mediaType !== CONFIG) return;
      const config = read(blob(json.config.digest)) as { rootfs: { diff_ids: string[] } };
      checkConfig(config, `${at}.config`, complaints);
      const layers = json.layers.filter((layer) => layer.mediaType.startsWith("application/vnd.oci.image.layer."));
      // attestations are described as images, and have none
      if (layers.length !== json.layers.length) return;
      const plain = await Promise.all(
        layers.map(async (layer) => (await hashOf(join(directory, blob(layer.digest)), layer.mediaType)).plain),
      );
      if (!Bun.deepEquals(plain, config.rootfs.diff_ids))
        complaints.push(`${at}: diff ids are ${config.rootfs.diff_ids}, layers hold ${plain}`);
    } else if (DOCKER.test(mediaType)) complaints.push(`${at}: ${mediaType} in an OCI layout`);
  };
  const index = read("index.json");
  checkIndex(index, "index", complaints);
  for (const [i, child] of (index.manifests as unknown[]).entries()) await follow(child, `index.manifests[${i}]`);
  return { complaints, seen };
}
