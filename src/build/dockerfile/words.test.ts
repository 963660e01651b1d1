// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these are variables of Dockerfiles
import { describe, expect, test } from "bun:test";
import { Failure } from "../../lib/errors.ts";
import { createMatcher, expandHeredoc, expandShown, expandWord, expandWords, ignorePatterns, rawWords } from "./index.ts";

const values: Record<string, string> = { a: "foo", e: "", p: "/usr/lib/x.tar.gz", s: "x y" };
const variables = (name: string) => values[name];
const word = (text: string) => expandWord(text, "\\", variables);

describe("expansion", () => {
  test.each([
    ["$a", "foo"],
    ["${a}bar", "foobar"],
    ["$abar", ""],
    ["\\$a", "$a"],
    ["'$a'", "$a"],
    ['"$a b"', "foo b"],
    ['"\\$a \\x"', "$a \\x"],
    ["a\\ b", "a b"],
    ["$", "$"],
    ["$$a", "a"],
    ["${u:-x}", "x"],
    ["${e:-x}", "x"],
    ["${e-x}", ""],
    ["${u-x}", "x"],
    ["${a:+x}", "x"],
    ["${e:+x}", ""],
    ["${e+x}", "x"],
    ["${u:-${a}b}", "foob"],
    ['${u:-"}"}', "}"],
    ["${p#*/}", "usr/lib/x.tar.gz"],
    ["${p##*/}", "x.tar.gz"],
    ["${p%.*}", "/usr/lib/x.tar"],
    ["${p%%.*}", "/usr/lib/x"],
    ["${a/o/0}", "f0o"],
    ["${a//o/0}", "f00"],
    ["${a/f*o/z}", "z"],
    ["${a//o}", "f"],
    ["${a#f?}", "o"],
    ["${a#nope}", "foo"],
  ])("%s is %s", (text, wanted) => expect(word(text)).toBe(wanted));

  test.each([
    ["${a", "syntax error: missing '}'"],
    ["${}", "bad substitution"],
    ["${a:x}", "unsupported modifier (:x) in substitution"],
    ["'a", "matching single-quote"],
    ['"a', "matching double-quote"],
    ["${u:?must be}", "u: must be"],
    ["${u:?}", "u: is not allowed to be empty"],
  ])("%s is refused", (text, wanted) => expect(() => word(text)).toThrow(wanted));

  test("words", () => {
    expect(rawWords('a \'b c\'  "d\\" e" f\\ g', "\\")).toEqual(["a", "'b c'", '"d\\" e"', "f\\ g"]);
    expect(expandWords('$s "$s" x', "\\", variables)).toEqual(["x", "y", "x y", "x"]);
    expect(expandWord("a`$b", "`", variables)).toBe("a$b");
  });

  test("here-documents keep their quotes", () => {
    expect(expandHeredoc("'$a' \"${a}\" \\$a \\n", "\\", variables)).toBe("'foo' \"foo\" $a \\n");
  });

  test("hostile input stays bounded", () => {
    expect(() => word("${u:-".repeat(5000))).toThrow("nested");
    values.long = "a".repeat(10_000);
    expect(word("${long%%*b*b*b*c}")).toBe(values.long);
  });
});

test("whatever comes in is expanded or refused, never more", () => {
  let seed = 1;
  const random = (n: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % n;
  };
  const parts = ["$", "{", "}", "a", "u", "p", ":", "-", "+", "?", "#", "%", "/", "*", "\\", "'", '"', " ", "é", "\n", "${a", "${p%"];
  for (let i = 0; i < 20_000; i++) {
    let text = "";
    for (let n = random(12); n > 0; n--) text += parts[random(parts.length)];
    for (const work of [
      () => expandWord(text, "\\", variables),
      () => expandWords(text, "\\", variables),
      () => createMatcher(ignorePatterns(text))("a/b"),
    ]) {
      try {
        work();
      } catch (error) {
        if (!(error instanceof Failure)) throw new Error(`${JSON.stringify(text)}: ${error}`);
      }
    }
  }
});

describe(".dockerignore", () => {
  const ignored = (patterns: string, path: string) => createMatcher(ignorePatterns(patterns))(path);
  test.each([
    ["*.md", "a.md", true],
    ["*.md", "d/a.md", false],
    ["**/*.md", "d/e/a.md", true],
    ["**/*.md", "a.md", true],
    ["d", "d/e/f", true],
    ["/d/", "d/e", true],
    ["d/**", "d/e/f", true],
    ["*\n!keep", "keep", false],
    ["*\n!keep", "other", true],
    ["*\n!d/keep", "d/keep", false],
    ["*\n!d\nd/x", "d/x", true],
    ["# c\n\n  a  ", "a", true],
    ["a?c", "abc", true],
    ["[ab].txt", "b.txt", true],
    ["[^ab].txt", "b.txt", false],
    ["a.c", "abc", false],
    ["\\*", "*", true],
    ["./x/../y", "y", true],
  ])("%j, %s: %p", (patterns, path, wanted) => expect(ignored(patterns, path)).toBe(wanted));

  test("bad patterns are refused", () => {
    expect(() => ignored("[a", "a")).toThrow("syntax error in pattern");
    expect(() => ignored("!", "a")).toThrow("illegal exclusion pattern");
  });
});

test("a command as BuildKit shows it: variables that are set have their values, all else stays", () => {
  const values = new Map([
    ["V", "1"],
    ["U", "a b"],
  ]);
  const shown = (text: string) => expandShown(text, "\\", (name) => values.get(name));
  expect(shown(`RUN echo $V \${U} "$V" '$V' \\$V $NO \${NO} \${NO:-x\${V}} \${V:-x} \${V:+y} $$ $?`)).toBe(
    `RUN echo 1 a b "1" '$V' $V $NO \${NO} \${NO:-x\${V}} 1 y $$ $?`,
  );
  for (const text of ["echo $" + "{#V}", 'echo "$V', "echo '$V", "echo $" + "{V"]) expect(shown(text)).toBe(text);
});
