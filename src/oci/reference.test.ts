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

const docker = Bun.which("docker");
if (!docker) console.log("skip: docker not installed");
test.skipIf(!docker)(
  "names, and names that were damaged, are taken and refused as docker's own parser does, in its words",
  async () => {
    const names = [
      "busybox",
      "user/app:1.0",
      "localhost:5000/a/b_c:Tag",
      "registry.example.com/deep/er/name__x.y-z:v1",
      "[2001:db8::1]:5000/app",
      "index.docker.io/app",
      "Host/app",
      `repo/app:1@${DIGEST}`,
      "a".repeat(64),
      `${"a/".repeat(127)}b`,
      `app@sha512:${"b".repeat(128)}`,
    ];
    const alphabet = [
      "a",
      "B",
      "0",
      ".",
      "..",
      "-",
      "_",
      "___",
      "/",
      "//",
      ":",
      "@",
      "[",
      "]",
      " ",
      "é",
      ":80",
      "A/",
      "%41",
      "sha256:",
      "\n",
    ];
    let seed = 11;
    const random = (n: number) => {
      seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((seed / 2 ** 32) * n);
    };
    const cases = [...names];
    while (cases.length < 130) {
      let text = names[random(names.length)]!;
      for (let n = random(2); n >= 0; n--) {
        const at = random(text.length + 1);
        text = text.slice(0, at) + alphabet[random(alphabet.length)] + text.slice(at + random(3));
      }
      if (!text.startsWith("-") && text !== "") cases.push(text);
    }
    const said = async (text: string): Promise<string> => {
      const child = Bun.spawn([docker!, "-H", "unix:///nowhere/docker.sock", "pull", text], { stdout: "ignore", stderr: "pipe" });
      const told = await new Response(child.stderr).text();
      return /Cannot connect|failed to connect/i.test(told) ? "taken" : told.trim();
    };
    const ours = (text: string): string => {
      try {
        parseReference(text);
        return "taken";
      } catch (error) {
        return (error as Error).message;
      }
    };
    for (let at = 0; at < cases.length; at += 10) {
      const some = cases.slice(at, at + 10);
      const theirs = await Promise.all(some.map(said));
      expect(some.map((text) => [text, ours(text)])).toEqual(some.map((text, i) => [text, theirs[i]!]));
    }
  },
  30_000,
);

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
