import { describe, expect, test } from "bun:test";
import { Failure } from "../../lib/errors.ts";
import { DockerfileError, excerpt, parseDockerfile, parseTriggers } from "./index.ts";

/** The instructions of a stage that begins with FROM scratch. */
const body = (text: string) => parseDockerfile(`FROM scratch\n${text}`).stages[0]!.instructions;
const one = (text: string) => body(text)[0]!;
const fault = (text: string): string => {
  try {
    parseDockerfile(text);
  } catch (error) {
    expect(error).toBeInstanceOf(DockerfileError);
    return (error as Error).message;
  }
  return "";
};

describe("lines", () => {
  test("comments, empty lines and continuation lines", () => {
    const run = one("# c\n\nRUN a \\\n  # inside\n\n  && b\\\n c");
    expect(run).toMatchObject({ kind: "RUN", command: { form: "shell", line: "a   && b c" }, range: { start: 4, end: 8 } });
  });

  test("an escaped escape character does not continue a line", () => {
    expect(body("RUN a \\\\\nRUN b")).toHaveLength(2);
  });

  test("the escape directive", () => {
    const file = parseDockerfile("# escape=`\nFROM scratch\nCOPY a `\n c:\\\n");
    expect(file.stages[0]!.instructions[0]).toMatchObject({ sources: ["a"], destination: "c:\\" });
    expect(fault("# escape=x\nFROM scratch")).toContain("invalid escape token 'x'");
    expect(fault("# escape=`\n# escape=`\nFROM scratch")).toBe(
      "dockerfile parse error on line 2: only one escape parser directive can be used",
    );
  });

  test("a directive after a comment is a comment", () => {
    expect(parseDockerfile("# hello\n# escape=`\nFROM scratch\nRUN a \\\n b").stages[0]!.instructions).toHaveLength(1);
    expect(parseDockerfile("# syntax = docker/dockerfile:1\n# check=skip=all\nFROM scratch").directives).toMatchObject({
      syntax: "docker/dockerfile:1",
      check: "skip=all",
    });
  });

  test("a byte order mark and CR LF", () => {
    const file = parseDockerfile("\uFEFFFROM scratch\r\nRUN a \\\r\n b\r\nCMD x\r\n");
    expect(file.stages[0]!.instructions).toMatchObject([{ command: { line: "a  b" } }, { command: { line: "x" } }]);
  });

  test("here-documents", () => {
    const run = one("RUN <<EOF\na\n# not a comment\nEOF\n");
    expect(run.heredocs).toEqual([{ name: "EOF", expand: true, chomp: false, content: "a\n# not a comment\n" }]);
    expect(run.range).toEqual({ start: 2, end: 5 });
    const copy = one("COPY <<-'A' <<B /d/\n\tx\n\tA\ny\nB\n");
    expect(copy.heredocs).toEqual([
      { name: "A", expand: false, chomp: true, content: "x\n" },
      { name: "B", expand: true, chomp: false, content: "y\n" },
    ]);
    expect(fault("FROM scratch\nRUN <<EOF\nx")).toBe("dockerfile parse error on line 2: unterminated heredoc");
    expect(one("RUN cat <<< x").heredocs).toEqual([]);
  });
});

describe("instructions", () => {
  test("FROM", () => {
    const { stages, globals } = parseDockerfile("ARG V=1\nFROM --platform=$BUILDPLATFORM a:$V AS Base\nFROM base\n");
    expect(globals[0]!.pairs).toEqual([{ name: "V", value: "1" }]);
    expect(stages[0]).toMatchObject({ name: "base", from: { image: "a:$V", platform: "$BUILDPLATFORM" } });
    expect(fault("FROM a AS 1x")).toContain('invalid name for build stage: "1x"');
    expect(fault("FROM a b")).toContain("FROM requires either one or three arguments");
    expect(fault("FROM a AS x\nFROM b AS X")).toBe("");
    expect(fault("RUN a\nFROM b")).toContain("no build stage in current context");
    expect(fault("# nothing\n")).toContain("file with no instructions");
  });

  test("commands in shell and exec form", () => {
    expect(one('CMD ["a", "b c"]')).toMatchObject({ command: { form: "exec", args: ["a", "b c"] } });
    expect(one("CMD ['a']")).toMatchObject({ command: { form: "shell", line: "['a']" } });
    expect(one("ENTRYPOINT x y")).toMatchObject({ command: { form: "shell", line: "x y" } });
    expect(one('SHELL ["a","-c"]')).toMatchObject({ shell: ["a", "-c"] });
    expect(fault("FROM a\nSHELL x")).toContain("SHELL requires the arguments to be in JSON form");
  });

  test("COPY and ADD with flags", () => {
    expect(one("COPY --from=x --chown=1:2 --chmod=755 --link --exclude=*.md --exclude=a b c /d/")).toMatchObject({
      sources: ["b", "c"],
      destination: "/d/",
      flags: { from: "x", chown: "1:2", chmod: "755", link: true, exclude: ["*.md", "a"] },
    });
    expect(one('ADD --checksum=sha256:ab ["a b", "c"]')).toMatchObject({ sources: ["a b"], flags: { checksum: "sha256:ab" } });
    expect(fault("FROM a\nCOPY x")).toContain("COPY requires at least two arguments");
    expect(fault("FROM a\nCOPY --nope=1 x y")).toContain("unknown flag: nope");
    expect(fault("FROM a\nCOPY --from=1 --from=2 x y")).toContain("duplicate flag specified: from");
  });

  test("RUN with mounts", () => {
    expect(one("RUN --mount=type=cache,target=/c,id=x --mount=target=/src,ro --network=none --security=insecure make")).toMatchObject({
      mounts: [
        { type: "cache", options: { target: "/c", id: "x" } },
        { type: "bind", options: { target: "/src", readonly: "true" } },
      ],
      network: "none",
      security: "insecure",
      command: { line: "make" },
    });
    expect(fault("FROM a\nRUN --mount=type=nope,target=/x y")).toContain('unsupported mount type "nope"');
    expect(fault("FROM a\nRUN --network=x y")).toContain("unsupported network mode");
  });

  test("ENV, LABEL and ARG", () => {
    expect(one("ENV a=b c=\"d e\" f='g'")).toMatchObject({
      pairs: [
        { name: "a", value: "b" },
        { name: "c", value: '"d e"' },
        { name: "f", value: "'g'" },
      ],
    });
    expect(one("ENV a b  c")).toMatchObject({ pairs: [{ name: "a", value: "b  c" }] });
    expect(one("ARG a b=1")).toMatchObject({
      pairs: [
        { name: "a", value: undefined },
        { name: "b", value: "1" },
      ],
    });
    expect(fault("FROM a\nENV x")).toContain("ENV must have two arguments");
    expect(fault("FROM a\nENV a=1 b")).toContain(`Syntax error - can't find = in "b". Must be of the form: name=value`);
  });

  test("HEALTHCHECK, ONBUILD and the rest", () => {
    expect(one("HEALTHCHECK --interval=1m30s --timeout=500ms --retries=4 CMD curl x")).toMatchObject({
      health: { Test: ["CMD-SHELL", "curl x"], Interval: 90e9, Timeout: 5e8, Retries: 4 },
    });
    expect(one("HEALTHCHECK NONE")).toMatchObject({ health: { Test: ["NONE"] } });
    expect(fault("FROM a\nHEALTHCHECK --interval=x CMD a")).toContain('time: invalid duration "x"');
    expect(one("ONBUILD RUN x --y")).toMatchObject({ trigger: "RUN x --y" });
    expect(fault("FROM a\nONBUILD ONBUILD RUN x")).toContain("Chaining ONBUILD");
    expect(fault("FROM a\nONBUILD FROM x")).toContain("FROM isn't allowed as an ONBUILD trigger");
    expect(one('VOLUME ["/a", "/b"]')).toMatchObject({ values: ["/a", "/b"] });
    expect(one("EXPOSE 80 443/udp")).toMatchObject({ values: ["80", "443/udp"] });
    expect(parseTriggers(["COPY a /b"], { start: 7, end: 7 })[0]).toMatchObject({ kind: "COPY", range: { start: 7 } });
  });

  test("unknown instructions get a hint", () => {
    expect(fault("FROM a\nCOPPY x y")).toBe("dockerfile parse error on line 2: unknown instruction: COPPY (did you mean COPY?)");
    expect(fault("FROM a\nXYZZY")).toBe("dockerfile parse error on line 2: unknown instruction: XYZZY");
  });
});

test("an excerpt has a caret below the place", () => {
  const text = excerpt("FROM a\n  COPPY x\nRUN y\n", "Dockerfile", { start: 2, end: 2 }, "COPPY");
  expect(text.split("\n")).toEqual([
    "Dockerfile:2",
    "--------------------",
    "   1 |     FROM a",
    "   2 | >>>   COPPY x",
    "     |       ^^^^^",
    "   3 |     RUN y",
    "   4 |",
    "--------------------",
  ]);
});

test("whatever comes in is parsed or refused, never more", () => {
  let seed = 20261121;
  const random = (n: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % n;
  };
  const words = [
    "FROM",
    "a",
    "AS",
    "RUN",
    "COPY",
    "--from=",
    "--mount=type=",
    "cache",
    "<<EOF",
    "EOF",
    "\\",
    "\n",
    "\n",
    " ",
    "\t",
    "#",
    "escape=`",
    "[",
    "]",
    '"',
    "'",
    "$",
    "{",
    "}",
    ":-",
    "ENV",
    "=",
    "ONBUILD",
    "HEALTHCHECK",
    "CMD",
    "--",
    "\0",
    "é",
    ",",
  ]; // prettier-ignore
  for (let i = 0; i < 5000; i++) {
    let text = random(2) ? "FROM a\n" : "";
    for (let n = random(30); n > 0; n--) text += words[random(words.length)] + (random(2) ? " " : "");
    try {
      parseDockerfile(text);
    } catch (error) {
      if (!(error instanceof Failure)) throw new Error(`${JSON.stringify(text)}: ${error}`);
    }
  }
});

describe("hostile text", () => {
  test("whatever comes in is parsed or refused, soon", () => {
    let seed = 7;
    const random = (n: number) => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return (seed >>> 8) % n;
    };
    const parts = [
      "FROM a",
      "FROM --platform=$X a AS b",
      "RUN ",
      "RUN <<EOF",
      "RUN <<-'A' <<B",
      "EOF",
      "A",
      "COPY --from=b",
      "COPY [",
      '"a"',
      ",",
      "]",
      "ADD",
      "ENV ",
      "ARG X",
      "LABEL a=",
      "ONBUILD ",
      "HEALTHCHECK --interval=",
      "CMD",
      "# escape=`",
      "# check=skip=all",
      "# c",
      "\\",
      "`",
      "\\\n",
      "\n",
      "\n",
      "\n",
      " ",
      "\t",
      "=",
      "'",
      '"',
      "$",
      "${",
      "}",
      "--mount=type=cache,",
      "target=/",
      "\0",
      "\uFEFF",
      "é",
      "<<",
      "SHELL []",
      "EXPOSE 1-2",
    ]; // prettier-ignore
    const end = performance.now() + 10_000;
    for (let i = 0; i < 20_000 && performance.now() < end; i++) {
      let text = random(2) ? "FROM a\n" : "";
      for (let n = random(20); n > 0; n--) text += parts[random(parts.length)];
      try {
        parseDockerfile(text);
      } catch (error) {
        if (!(error instanceof Failure)) throw new Error(`${JSON.stringify(text)}: ${error}`);
      }
    }
    expect(performance.now()).toBeLessThan(end);
  });

  test("long lines, many here-documents, many instructions and flags are bounded", () => {
    const start = performance.now();
    expect(body(`RUN ${"x ".repeat(500_000)}`)).toHaveLength(1);
    expect(body(`RUN a ${"\\\n b".repeat(100_000)}`)).toHaveLength(1);
    expect(body(`ENV A=${"$".repeat(100_000)}`)).toHaveLength(1);
    const many = 2000;
    const names = Array.from({ length: many }, (_, i) => `E${i}`);
    expect(
      one(`RUN cat ${names.map((name) => `<<${name}`).join(" ")}\n${names.map((name) => `${name}\n`).join("")}`).heredocs,
    ).toHaveLength(many);
    expect(fault(`FROM a\n${"RUN x\n".repeat(6000)}`)).toContain("more than 5000 instructions");
    expect(() => parseDockerfile(`FROM a\n# ${"x".repeat(5 << 20)}`)).toThrow("longer than");
    expect(fault(`FROM a\nRUN ${"--mount=target=/a ".repeat(50_000)}x`)).toBe("");
    expect(fault(`FROM a\nRUN <<A\n${"x\n".repeat(300_000)}`)).toContain("unterminated heredoc");
    expect(performance.now() - start).toBeLessThan(10_000);
  });
});
