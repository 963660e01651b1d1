// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these are variables of Dockerfiles
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { fromBinary } from "@bufbuild/protobuf";
import { type Definition, type Op, OpSchema } from "../../gen/pb_pb.ts";
import { notFound } from "../../lib/errors.ts";
import type { BaseImage } from "../host.ts";
import type { WarningEvent } from "../progress.ts";
import type { Ref, Result } from "../session.ts";
import { frontend } from "./index.ts";

// The machine may have other things to do.
setDefaultTimeout(30_000);

const image = (config: BaseImage["config"] = {}): BaseImage => ({
  id: `sha256:${"a".repeat(64)}`,
  digest: `sha256:${"b".repeat(64)}`,
  config: { Env: ["PATH=/bin"], ...config },
  layers: [{ descriptor: { mediaType: "x", digest: `sha256:${"1".repeat(64)}`, size: 1 }, diffId: `sha256:${"1".repeat(64)}` }],
  history: [],
  platform: { os: "linux", architecture: "amd64" },
  author: "",
});

interface Built {
  result: Result;
  warnings: WarningEvent[];
  asked: string[];
  /** Operations of the result, in their order, with their names. */
  ops: { op: Op["op"]; name: string; inputs: number; digest: string }[];
  config: { config: Record<string, unknown>; history: { created_by: string; empty_layer?: boolean }[] };
}

const opsOf = (definition: Definition) =>
  definition.def.slice(0, -1).map((bytes) => {
    const { op, inputs } = fromBinary(OpSchema, bytes);
    const digest = `sha256:${new Bun.CryptoHasher("sha256").update(bytes).digest("hex")}`;
    return { op, digest, inputs: inputs.length, name: definition.metadata[digest]?.description["llb.customname"] ?? "" };
  });

async function built(
  text: string,
  attrs: Record<string, string> = {},
  more: { files?: Record<string, string>; images?: Record<string, BaseImage> } = {},
): Promise<Built> {
  const warnings: WarningEvent[] = [];
  const asked: string[] = [];
  const files: Record<string, string> = { Dockerfile: text, ...more.files };
  const loaded = new Map<Ref, Definition>();
  const result = await frontend({
    name: "dockerfile.v0",
    attrs,
    session: {
      load(definition) {
        const ref = {
          readFile: async (path: string) => {
            const content = files[path];
            if (content === undefined) throw notFound(`open ${path}: no such file or directory`);
            return Buffer.from(content);
          },
        } as unknown as Ref;
        loaded.set(ref, definition);
        return ref;
      },
    },
    host: {
      resolveImage: async (ref) => {
        asked.push(ref);
        return more.images?.[ref] ?? image();
      },
    },
    signal: new AbortController().signal,
    onWarning: (warning) => void warnings.push(warning),
  });
  const config = result.metadata.get("containerimage.config");
  return {
    result,
    warnings,
    asked,
    ops: result.ref ? opsOf(loaded.get(result.ref)!) : [],
    config: config ? JSON.parse(Buffer.from(config).toString()) : { config: {}, history: [] },
  };
}

const rules = async (text: string, attrs: Record<string, string> = {}, files: Record<string, string> = {}) =>
  (await built(text, attrs, { files })).warnings.map(({ short }) => short);

const json = (result: Result) => JSON.parse(Buffer.from(result.metadata.get("result.json")!).toString());

describe("Dockerfile to LLB", () => {
  test("sources, commands and copies; names as BuildKit has them", async () => {
    const { ops, config } = await built('FROM a\nENV X=1\nRUN echo "$X"\nCOPY f d/ /g/\nWORKDIR /w\nCMD ["x"]\n');
    expect(ops.map(({ name }) => name)).toEqual([
      `[1/4] FROM docker.io/library/a:latest@sha256:${"b".repeat(64)}`,
      '[2/4] RUN echo "1"',
      "[internal] load build context",
      "[3/4] COPY f d/ /g/",
      "[4/4] WORKDIR /w",
    ]);
    expect(ops[1]!.op).toMatchObject({ value: { meta: { args: ["/bin/sh", "-c", 'echo "$X"'], env: ["PATH=/bin", "X=1"], cwd: "/" } } });
    expect(ops[2]!.op).toMatchObject({ value: { identifier: "local://context", attrs: { "local.followpaths": '["d","f"]' } } });
    expect(ops[3]!.op.value).toMatchObject({
      actions: [
        { input: 0n, secondaryInput: 1n, output: -1n, action: { value: { src: "/f", dest: "/g/", mode: -1, followSymlink: true } } },
        { input: 2n, secondaryInput: 1n, output: 0n, action: { value: { src: "/d", dest: "/g/", dirCopyContents: true } } },
      ],
    });
    expect(config.config).toMatchObject({ Env: ["PATH=/bin", "X=1"], WorkingDir: "/w", Cmd: ["x"] });
    expect(config.history.map(({ created_by, empty_layer }) => [created_by, empty_layer ?? false])).toEqual([
      ["ENV X=1", true],
      ['RUN /bin/sh -c echo "$X" # buildkit', false],
      ["COPY f d/ /g/ # buildkit", false],
      ["WORKDIR /w", false],
      ['CMD ["x"]', true],
    ]);
  });

  test("the same text gives the same digests, whatever its lines and names; arguments count from where they stand", async () => {
    const digests = async (text: string, attrs: Record<string, string> = {}) => (await built(text, attrs)).ops.map(({ digest }) => digest);
    const one = await digests("FROM a\nRUN x\n");
    expect(await digests("# c\n\nFROM a AS named\n\nRUN   x\n")).toEqual(one);
    expect(await digests("FROM a\nRUN y\n")).not.toEqual(one);
    const text = "FROM a\nRUN before\nARG A\nRUN after\n";
    const [first, second] = [await digests(text, { "build-arg:A": "1" }), await digests(text, { "build-arg:A": "2" })];
    expect(first.slice(0, 2)).toEqual(second.slice(0, 2));
    expect(first[2]).not.toBe(second[2]);
  });

  test("ENV values of one instruction do not see each other; ENTRYPOINT drops the base's CMD; scratch has a PATH", async () => {
    const images = { a: image({ Env: ["PATH=/p", "A=old"], Cmd: ["base"] }) };
    const { config } = await built('FROM a\nENV A=new B=$A\nENTRYPOINT ["e"]\n', {}, { images });
    expect(config.config.Env).toEqual(["PATH=/p", "A=new", "B=old"]);
    expect(config.config.Cmd).toBeUndefined();
    expect((await built('FROM a\nCMD ["own"]\nENTRYPOINT ["e"]\n', {}, { images })).config.config.Cmd).toEqual(["own"]);
    expect((await built("FROM scratch\nCOPY x /\n")).config.config.Env).toEqual([expect.stringContaining("PATH=/usr/local/sbin")]);
  });

  test("a context in git, or at an address", async () => {
    const git = await built("FROM a\nCOPY x /\n", { context: "https://h/o/r.git#main:sub" });
    expect(git.ops.some(({ op }) => op.case === "source" && op.value.identifier === "git://h/o/r.git#main:sub")).toBe(true);
    const file = "FROM a\nRUN from-address\n";
    const address = await built("", { context: "https://h/Dockerfile" }, { files: { context: file } });
    expect(address.ops.map(({ name }) => name)).toContain("[2/2] RUN from-address");
  });

  test("mounts of all kinds", async () => {
    const text = `FROM a AS tools
RUN make
FROM a
ARG ID=key
RUN --mount=type=cache,target=/c,id=\${ID},sharing=locked,uid=5 --mount=type=secret,id=s,env=S,required \\
    --mount=type=secret,id=t,mode=0444 --mount=type=ssh --mount=type=tmpfs,target=/t,size=1m \\
    --mount=from=tools,source=/x,target=/x --mount=target=/src,rw echo
`;
    const { ops } = await built(text, { "build-arg:BUILDKIT_CACHE_MOUNT_NS": "ns" });
    const exec = ops.at(-1)!.op;
    expect(exec.value).toMatchObject({
      meta: { env: ["PATH=/bin", "ID=key", "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0"] },
      secretenv: [{ ID: "s", name: "S", optional: false }],
      mounts: [
        { dest: "/", input: 0n, output: 0n },
        { dest: "/c", mountType: 3, selector: "/cache", cacheOpt: { ID: "ns/key", sharing: 2 }, input: 1n },
        { dest: "/run/secrets/t", mountType: 1, secretOpt: { ID: "t", mode: 0o444, optional: true } },
        { dest: "/run/buildkit/ssh_agent.0", mountType: 2, SSHOpt: { ID: "default", mode: 0o600 } },
        { dest: "/t", mountType: 4, TmpfsOpt: { size: 1048576n } },
        { dest: "/x", selector: "/x", readonly: true, input: 2n },
        { dest: "/src", readonly: false, output: -1n, input: 3n },
      ],
    });
    for (const [mount, wanted] of [
      ["type=nope,target=/a", 'unsupported mount type "nope"'],
      ["type=bind,target=/a,sharing=locked", "unexpected key 'sharing' for mount type 'bind'"],
      ["type=cache", "cache mounts require a target path"],
      ["from=$X,target=/a", "'from' doesn't support variable expansion"],
      ["type=cache,target=/a,sharing=no", "unsupported sharing value"],
      ["target=/", "invalid mount target"],
    ] as const)
      await expect(built(`FROM a\nRUN --mount=${mount} x\n`)).rejects.toThrow(wanted);
  });

  test("COPY: symbolic modes, owners, exclusions, parents with a pivot, a link of its own, here-documents", async () => {
    const text = `FROM a
COPY --chmod=u=rwX,go=rX --chown=app:7 --exclude=*.md x /x
COPY --parents ./base/./src/**/*.c /p/
COPY --link y /y
COPY <<one <<"two" /docs/
$PATH
one
$PATH
two
`;
    const { ops } = await built(text);
    const copies = ops.filter(({ op }) => op.case === "file").map(({ op }) => op.value as { actions: { action: { value: unknown } }[] });
    expect(copies[0]!.actions[0]!.action.value).toMatchObject({
      modeStr: "u=rwX,go=rX",
      excludePatterns: ["*.md"],
      owner: { user: { user: { value: { name: "app", input: 0n } } }, group: { user: { value: 7 } } },
    });
    expect(copies[1]!.actions[0]!.action.value).toMatchObject({ src: "/base", includePatterns: ["src/**/*.c"], dest: "/p/" });
    expect(copies[2]!.actions[0]).toMatchObject({ input: -1n, secondaryInput: 0n });
    expect(ops.some(({ op, inputs }) => op.case === "merge" && inputs === 2)).toBe(true);
    const inline = copies.flatMap(({ actions }) => actions.map(({ action }) => action.value as { path?: string; data?: Uint8Array }));
    expect(inline.filter(({ data }) => data).map(({ path, data }) => [path, Buffer.from(data!).toString()])).toEqual([
      ["/one", "/bin\n"],
      ["/two", "$PATH\n"],
    ]);
    await expect(built("FROM a\nCOPY --chmod=9 a b\n")).rejects.toThrow("invalid chmod parameter: '9'");
  });

  test("ADD of git and of addresses", async () => {
    const sum = `sha256:${"c".repeat(64)}`;
    const { ops } = await built(
      `FROM a\nADD --keep-git-dir=true https://github.com/o/r.git#v1:sub /g\nADD --checksum=${sum} --unpack https://h/f.tar.gz /u/\nADD git@host:o/r.git /s\n`,
    );
    const sources = ops.flatMap(({ op }) => (op.case === "source" ? [op.value] : [])).slice(1);
    expect(sources[0]).toMatchObject({
      identifier: "git://github.com/o/r.git#v1:sub",
      attrs: { "git.fullurl": "https://github.com/o/r.git", "git.keepgitdir": "true" },
    });
    expect(sources[1]).toMatchObject({ identifier: "https://h/f.tar.gz", attrs: { "http.filename": "f.tar.gz", "http.checksum": sum } });
    expect(sources[2]).toMatchObject({ identifier: "git://host/o/r.git", attrs: { "git.mountsshsock": "default" } });
    await expect(built("FROM a\nCOPY https://h/f /x\n")).rejects.toThrow("source can't be a URL for COPY");
  });

  test("arguments: global ones, platforms, stages inherit them, the target's name", async () => {
    const text = `ARG V=1
FROM --platform=$BUILDPLATFORM a:$V AS base
ARG V
ARG OWN=\${V}x
FROM base AS last
RUN echo $TARGETSTAGE
ARG TARGETARCH
ARG TARGETSTAGE
ENV GOT=$OWN-$TARGETARCH-$TARGETSTAGE
`;
    const { asked, config } = await built(text, { "build-arg:V": "9", target: "last" });
    expect(asked).toEqual(["a:9"]);
    expect(config.config.Env).toContain("GOT=9x-amd64-last");
  });

  test("several platforms", async () => {
    const { result } = await built("FROM a\nARG TARGETARCH\nRUN echo $TARGETARCH\n", { platform: "linux/amd64,linux/arm64" });
    expect([...result.refs.keys()]).toHaveLength(2);
    expect(JSON.parse(Buffer.from(result.metadata.get("refs.platforms")!).toString()).Platforms).toHaveLength(2);
    expect(result.ref).toBeUndefined();
  });

  test("contexts with names stand for images and stages", async () => {
    const text = "FROM busybox AS one\nRUN x\nFROM other\nCOPY --from=one /a /a\nCOPY --from=files /b /b\n";
    const { asked, ops } = await built(text, {
      "context:one": "docker-image://replaced:1",
      "context:other": "docker-image://docker.io/library/base:2",
      "context:files": "local:files",
    });
    expect(asked.sort()).toEqual(["docker.io/library/base:2", "replaced:1"]);
    expect(ops.some(({ name }) => name.includes("RUN x"))).toBe(false);
    expect(ops.some(({ op }) => op.case === "source" && op.value.identifier === "local://files")).toBe(true);
  });

  test("stages that nothing needs are not looked at; circles and missing ones are refused", async () => {
    const { asked } = await built("FROM a AS x\nFROM never\nRUN no\nFROM b\nCOPY --from=x /f /g\n");
    expect(asked.sort()).toEqual(["a", "b"]);
    await expect(built("FROM a AS x\nCOPY --from=y /f /g\nFROM a AS y\nCOPY --from=x /f /g\n")).rejects.toThrow(
      "circular dependency detected on stage: y",
    );
    await expect(built("FROM a\nCOPY --from=7 /f /g\n")).rejects.toThrow("invalid stage index 7");
    await expect(built("FROM a AS build\n", { target: "biuld" })).rejects.toThrow("could not be found (did you mean build?)");
    // A later stage may be copied from, as long as it does not lead back.
    expect((await built("FROM a AS x\nCOPY --from=y /f /g\nFROM b AS y\n", { target: "x" })).asked.sort()).toEqual(["a", "b"]);
  });

  test("triggers of a base image run, and may name stages", async () => {
    const images = { base: image({ OnBuild: ["COPY --from=late /x /x", "RUN y"] }) };
    const { ops, config } = await built("FROM a AS late\nFROM base\n", {}, { images });
    expect(ops.map(({ name }) => name)).toContain("[stage-1 2/3] COPY --from=late /x /x");
    expect(config.config.OnBuild).toBeUndefined();
  });

  test("here-documents of RUN: a script, a shell's lines, several", async () => {
    const args = async (text: string) =>
      (await built(`FROM a\n${text}`)).ops.flatMap(({ op }) => (op.case === "exec" ? [op.value.meta!.args] : []))[0];
    expect(await args("RUN <<EOF\na\nb\nEOF\n")).toEqual(["/bin/sh", "-c", "a\nb\n"]);
    expect(await args("RUN <<'E'\n#!/bin/x\nb\nE\n")).toEqual(["/dev/pipes/E"]);
    expect(await args("RUN cat <<A >a && cat <<B >b\n1\nA\n2\nB\n")).toEqual(["/bin/sh", "-c", "cat <<A >a && cat <<B >b\n1\nA\n2\nB"]);
  });

  test("settings of the client reach the steps", async () => {
    const { ops } = await built("FROM a\nRUN x\n", {
      "add-hosts": "h=1.2.3.4",
      ulimit: "nofile=10:20",
      "shm-size": "1024",
      "force-network-mode": "none",
      "cgroup-parent": "p",
      hostname: "n",
      "no-cache": "",
      "label:l": "v",
    });
    expect(ops[1]!.op.value).toMatchObject({
      network: 2,
      meta: {
        extraHosts: [{ Host: "h", IP: "1.2.3.4" }],
        ulimit: [{ Name: "nofile", Soft: 10n, Hard: 20n }],
        hostname: "n",
        cgroupParent: "p",
      },
      mounts: [{}, { dest: "/dev/shm", TmpfsOpt: { size: 1024n } }],
    });
  });

  test("mistakes name their line and bring the file", async () => {
    await expect(built("FROM a\nENV X=${Y\n")).rejects.toMatchObject({
      message: "dockerfile parse error on line 2: syntax error: missing '}'",
      range: { start: 2, end: 2 },
      source: { filename: "Dockerfile" },
    });
    await expect(built("# syntax=example.com/other:1\nFROM a\n")).rejects.toThrow("the frontend image example.com/other:1");
  });

  test("thousands of stages and variables stay quick", async () => {
    let text = "FROM a AS s0\n";
    for (let i = 1; i < 2400; i++) text += `FROM s${i - 1} AS s${i}\nENV V${i}=${i}\n`;
    const start = performance.now();
    const { config } = await built(text);
    expect(config.config.Env).toHaveLength(2400);
    let deep = "FROM a\n";
    for (let i = 0; i < 4900; i++) deep += `RUN ${i}\n`;
    expect((await built(deep)).ops).toHaveLength(4901);
    expect(performance.now() - start).toBeLessThan(20_000);
  }, 30_000);
});

describe("build checks", () => {
  test.each([
    ["FROM a AS Base\n", "StageNameCasing: Stage name 'Base' should be lowercase (line 1)"],
    ["FROM a as base\n", "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"],
    ["FROM a\nRUN x \\\n\n y\n", "NoEmptyContinuation: Empty continuation line (line 2)"],
    ["FROM a\nRun x\n", "ConsistentInstructionCasing: Command 'Run' should match the case of the command majority (uppercase) (line 2)"],
    ["FROM a AS x\nFROM b AS x\n", 'DuplicateStageName: Duplicate stage name "x", stage names should be unique (line 2)'],
    ["FROM a AS context\n", 'ReservedStageName: Stage name should not use the same name as reserved stage "context" (line 1)'],
    [
      "FROM a\nCMD x\n",
      "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 2)",
    ],
    ["FROM a\nMAINTAINER x\n", "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"],
    [
      "ARG BASE=a\nFROM ${BASF:-a}\nFROM a$BASF\n",
      "UndefinedArgInFrom: FROM argument 'BASF' is not declared (did you mean BASE?) (line 3)",
    ],
    ["FROM a\nARG version\nCOPY f $verzion\n", "UndefinedVar: Usage of undefined variable '$verzion' (did you mean $version?) (line 3)"],
    ["FROM a\nWORKDIR x\n", 'WorkdirRelativePath: Relative workdir "x" can have unexpected results if the base image changes (line 2)'],
    [
      'FROM a\nCMD ["a"]\nCMD ["b"]\n',
      "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)",
    ],
    ["FROM a\nENV k v\n", 'LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format (line 2)'],
    [
      "FROM --platform=$TARGETPLATFORM a\n",
      "RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1)",
    ],
    ["FROM a\nARG API_KEY\n", 'SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG "API_KEY") (line 2)'],
    [
      "ARG TAG\nFROM a:${TAG}\n",
      "InvalidDefaultArgInFrom: Default value for ARG a:${TAG} results in empty or invalid base image name (line 2)",
      { "build-arg:TAG": "1" },
    ],
    [
      "FROM --platform=linux/amd64 a\n",
      'FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value "linux/amd64" (line 1)',
    ],
    ["FROM a\nEXPOSE 80/TCP\n", "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)"],
    [
      "FROM a\nEXPOSE 127.0.0.1:80:80\n",
      "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80' (line 2)",
    ],
    [
      "# check=experimental=CopyIgnoredFile\nFROM a\nCOPY x y\n",
      'CopyIgnoredFile: Attempting to Copy file "x" that is excluded by .dockerignore (line 3)',
    ],
    [
      "# check=experimental=all\n# other\nFROM a AS b\n",
      "InvalidDefinitionDescription: Comment for build stage should follow the format: `# b <description>` (line 3)",
    ],
  ] as [string, string, Record<string, string>?][])("%j", async (text, wanted, attrs) => {
    expect(await rules(text, attrs ?? {}, { ".dockerignore": "x\n" })).toEqual([wanted]);
  });

  test("a clean file has none", async () => {
    expect(
      await rules(`# syntax=docker/dockerfile:1
ARG BASE=a
FROM \${BASE} AS build
WORKDIR /src
WORKDIR sub
ENV PUBLIC_KEY=x
COPY --from=b /x \${HOME:-/root}
SHELL ["/bin/bash", "-c"]
CMD x

FROM --platform=linux/arm64 a AS b_arm64
`),
    ).toEqual([]);
  });

  test("skip, error, and BUILDKIT_DOCKERFILE_CHECK", async () => {
    expect(await rules("# check=skip=MaintainerDeprecated\nFROM a\nMAINTAINER x\n")).toEqual([]);
    expect(await rules("FROM a\nMAINTAINER x\n", { "build-arg:BUILDKIT_DOCKERFILE_CHECK": "skip=all" })).toEqual([]);
    await expect(rules("# check=error=true\nFROM a\nMAINTAINER x\n")).rejects.toThrow(
      "lint violation found for rules: MaintainerDeprecated",
    );
    await expect(rules("# check=nope=1\nFROM a\n")).rejects.toThrow("invalid check option");
  });
});

describe("subrequests", () => {
  test("lint, also of what can't be built", async () => {
    const { result } = await built("FROM a\nMAINTAINER x\nCOPPY a b\n", { requestid: "frontend.lint" });
    expect(json(result)).toMatchObject({ warnings: [], buildError: { message: expect.stringContaining("unknown instruction: COPPY") } });
    expect(Buffer.from(result.metadata.get("result.statuscode")!).toString()).toBe("1");
    const fine = await built("FROM a\nMAINTAINER x\n", { requestid: "frontend.lint" });
    expect(json(fine.result)).toMatchObject({
      warnings: [{ ruleName: "MaintainerDeprecated", location: { ranges: [{ start: { line: 2 }, end: { line: 2 } }] } }],
    });
  });

  test("outline and targets", async () => {
    const text = `# V the version
ARG V=1
# build compiles
FROM a:$V AS build
ARG V
# DEBUG more output
ARG DEBUG
RUN --mount=type=secret,id=token,required --mount=type=cache,target=/c --mount=type=ssh x
FROM build AS test
`;
    const outline = json((await built(text, { requestid: "frontend.outline", target: "build" })).result);
    expect(outline).toMatchObject({
      name: "build",
      description: "compiles",
      args: [
        { name: "V", value: "1", description: "the version" },
        { name: "DEBUG", description: "more output" },
      ],
      secrets: [{ name: "token", required: true }],
      ssh: [{ name: "default" }],
      cache: [{ ID: "/c" }],
    });
    const list = json((await built(text, { requestid: "frontend.targets" })).result);
    expect(list.targets).toMatchObject([
      { name: "build", description: "compiles", base: "a:$V" },
      { name: "test", default: true, base: "build" },
    ]);
    expect(json((await built(text, { requestid: "frontend.subrequests.describe" })).result).length).toBeGreaterThan(3);
    await expect(built(text, { requestid: "nope" })).rejects.toThrow("the frontend's request nope");
  });
});
