import { expect, test } from "bun:test";
import { chainIds, digestOf, isDigest, matches } from "./digest.ts";
import { parseImageConfig } from "./image-config.ts";
import { MEDIA, parseManifest } from "./manifest.ts";
import { choosePlatform, parsePlatform } from "./platform.ts";

const bytes = (value: unknown) => new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));
const D = `sha256:${"1".repeat(64)}`;
const descriptor = { mediaType: MEDIA.ociConfig, digest: D, size: 10 };

test("digests", () => {
  expect(isDigest(D)).toBe(true);
  expect(isDigest(`sha512:${"1".repeat(128)}`)).toBe(true);
  for (const bad of [
    "",
    "sha256",
    "sha256:",
    `sha256:${"1".repeat(63)}`,
    `sha256:${"A".repeat(64)}`,
    `md5:${"1".repeat(32)}`,
    `../x:${"1".repeat(64)}`,
  ])
    expect(isDigest(bad)).toBe(false);
  expect(matches(bytes("x"), digestOf("x"))).toBe(true);
  expect(matches(bytes("x"), digestOf("x", "sha512"))).toBe(true);
  expect(chainIds([D, D])).toEqual([D, digestOf(`${D} ${D}`)]);
});

test("a manifest and an index are told apart, and what claims to be both is refused", () => {
  const manifest = { schemaVersion: 2, config: descriptor, layers: [{ ...descriptor, mediaType: MEDIA.ociLayerGzip }] };
  expect(parseManifest(bytes(manifest)).manifest?.layers.length).toBe(1);
  expect(
    parseManifest(bytes({ schemaVersion: 2, manifests: [{ ...descriptor, platform: { os: "linux", architecture: "amd64" } }] })).index,
  ).toBeDefined();
  expect(() => parseManifest(bytes({ ...manifest, manifests: [] }))).toThrow("both");
  expect(() => parseManifest(bytes({ ...manifest, mediaType: MEDIA.ociIndex }), MEDIA.ociManifest)).toThrow("announced");
  expect(() => parseManifest(bytes({ schemaVersion: 1 }))).toThrow("schema 1 are not supported");
});

test("hostile documents give InvalidArgument with the field's name", () => {
  const cases: [unknown, string][] = [
    ["", "not JSON"],
    ["[]", "not an object"],
    ["null", "not an object"],
    [{ config: 1 }, "manifest config is not an object"],
    [{ config: { digest: "../../etc", size: 1 } }, "manifest config.digest is not a digest"],
    [{ config: { digest: D, size: -1 } }, "manifest config.size is not a size"],
    [{ config: { digest: D, size: 1e300 } }, "manifest config.size is not a size"],
    [{ config: descriptor, layers: {} }, "manifest layers is not a list"],
    [{ config: descriptor, layers: new Array(5000).fill(descriptor) }, "the limit is"],
    [{ config: { ...descriptor, annotations: { a: 1 } } }, "manifest config.annotations.a is not a string"],
    [" ".repeat((4 << 20) + 1), "the limit is"],
  ];
  for (const [document, message] of cases) expect(() => parseManifest(bytes(document))).toThrow(message);
  expect(() => parseManifest(new Uint8Array([0x7b, 0xff, 0x7d]))).toThrow("not JSON");
  expect(() => parseManifest(bytes(`${'{"a":'.repeat(200_000)}1${"}".repeat(200_000)}`))).toThrow();
  expect(() => parseImageConfig(bytes({ rootfs: { diff_ids: ["x"] } }))).toThrow("not a digest");
});

test("mutations of a manifest are parsed or refused, never anything else", () => {
  const good = bytes({
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    config: descriptor,
    layers: [descriptor, descriptor],
    annotations: { a: "b" },
  });
  let seed = 3;
  const random = (n: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return seed % n;
  };
  for (let i = 0; i < 5000; i++) {
    const copy = good.slice();
    for (let n = random(4); n >= 0; n--) copy[random(copy.length)] = random(256);
    try {
      parseManifest(copy);
    } catch (error) {
      expect((error as Error).name).toBe("InvalidArgument");
    }
  }
});

test("the best platform is chosen", () => {
  const entry = (os: string, architecture: string, variant?: string) => ({
    platform: { os, architecture, ...(variant ? { variant } : {}) },
  });
  const list = [
    entry("linux", "arm", "v6"),
    entry("linux", "arm", "v7"),
    entry("linux", "amd64"),
    entry("linux", "arm64", "v8"),
    entry("windows", "amd64"),
  ];
  expect(choosePlatform(list, parsePlatform("linux/amd64"))).toBe(list[2]);
  expect(choosePlatform(list, parsePlatform("linux/arm64"))).toBe(list[3]);
  expect(choosePlatform(list, parsePlatform("linux/arm/v7"))).toBe(list[1]);
  expect(choosePlatform(list, parsePlatform("linux/arm/v5"))).toBeUndefined();
  expect(choosePlatform(list, parsePlatform("linux/riscv64"))).toBeUndefined();
  expect(
    choosePlatform([entry("linux", "amd64", "v3"), entry("linux", "amd64", "v2")], { os: "linux", architecture: "amd64" }),
  ).toBeUndefined();
  expect(() => parsePlatform("linux/amd64/v1/x")).toThrow();
});
