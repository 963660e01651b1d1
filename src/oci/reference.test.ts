import { expect, test } from "bun:test";
import { asImageId, familiarReference, formatReference, parseReference, parseTagged } from "./reference.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;

test("names are completed as Docker completes them, and shortened again", () => {
  const cases: [string, string, string][] = [
    ["busybox", "docker.io/library/busybox:latest", "busybox:latest"],
    ["busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"],
    ["index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"],
    ["docker.io/user/app", "docker.io/user/app:latest", "user/app:latest"],
    ["user/app", "docker.io/user/app:latest", "user/app:latest"],
    ["localhost/app", "localhost/app:latest", "localhost/app:latest"],
    ["localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"],
    ["Upper/app:1", "Upper/app:1", "Upper/app:1"],
    ["[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"],
    [`busybox@${DIGEST}`, `docker.io/library/busybox@${DIGEST}`, `busybox@${DIGEST}`],
    [`busybox:1@${DIGEST}`, `docker.io/library/busybox:1@${DIGEST}`, `busybox:1@${DIGEST}`],
  ];
  for (const [text, full, short] of cases) {
    expect(formatReference(parseTagged(text))).toBe(full);
    expect(familiarReference(parseTagged(text))).toBe(short);
  }
});

test("what is no name is refused in Docker's words", () => {
  for (const text of [
    "",
    ":x",
    "a b",
    "a//b",
    "-a",
    "a:",
    "a@sha256:12",
    "a..b",
    "http://x/y",
    `a${"b".repeat(2000)}`,
    "x/../y",
    "a\0b",
    "a:b:c",
  ])
    expect(() => parseReference(text)).toThrow(/invalid reference format/);
  expect(() => parseReference("Busybox")).toThrow("invalid reference format: repository name (library/Busybox) must be lowercase");
  expect(() => parseReference("a".repeat(64))).toThrow("cannot specify 64-byte hexadecimal strings");
  expect(() => parseReference(`x@md5:${"a".repeat(32)}`)).toThrow("unsupported digest algorithm");
  expect(() => parseReference(`${"a/".repeat(140)}b`)).toThrow("must not be more than 255 characters");
});

test("an image id is told from a name", () => {
  expect(asImageId(DIGEST)).toEqual({ digest: DIGEST });
  expect(asImageId("sha256:abc")).toEqual({ prefix: "abc" });
  expect(asImageId("cafe")).toEqual({ prefix: "cafe" });
  expect(asImageId("busybox")).toEqual({});
});

test("random names are parsed or refused, and quickly", () => {
  const alphabet = "ab0.-_/:@[]A é%";
  let seed = 7;
  const random = (n: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return seed % n;
  };
  const begin = performance.now();
  for (let i = 0; i < 20_000; i++) {
    const text = Array.from({ length: random(40) }, () => alphabet[random(alphabet.length)]).join("");
    try {
      const once = formatReference(parseReference(text));
      expect(formatReference(parseReference(once))).toBe(once);
    } catch (error) {
      expect((error as Error).name).toBe("InvalidArgument");
    }
  }
  expect(() => parseReference(`${"a-".repeat(500)}!`)).toThrow();
  expect(performance.now() - begin).toBeLessThan(5000);
});
