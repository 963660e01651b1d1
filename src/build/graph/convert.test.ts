import { describe, expect, test } from "bun:test";
import { parseDockerfile } from "../dockerfile/index.ts";
import type { BaseImage } from "../host.ts";
import { type ConvertOptions, convert } from "./convert.ts";

const image = (id: string, config: BaseImage["config"] = {}): BaseImage => ({
  id: `sha256:${id.padStart(64, "0")}`,
  config,
  layers: [{ descriptor: { mediaType: "x", digest: `sha256:${"1".repeat(64)}`, size: 1 }, diffId: `sha256:${"1".repeat(64)}` }],
  history: [],
  platform: { os: "linux", architecture: "amd64" },
  author: "",
});

function graphOf(text: string, options: Partial<ConvertOptions> & { images?: Record<string, BaseImage> } = {}) {
  return convert(parseDockerfile(text), {
    buildArgs: new Map(),
    labels: {},
    target: "",
    platform: { os: "linux", architecture: "amd64" },
    network: "default",
    entitlements: new Set(),
    resolveImage: async (ref) => options.images?.[ref] ?? image("a"),
    ...options,
  });
}

describe("Dockerfile to graph", () => {
  test("each instruction that changes files is a vertex; others are config", async () => {
    const { graph, result, steps } = await graphOf('FROM a\nENV X=1\nRUN echo "$X"\nCOPY f /g\nCMD ["x"]\n');
    expect(steps.map(({ kind }) => kind)).toEqual(["from", "config", "run", "files", "config"]);
    const copy = graph.vertices.get(result.vertex)!;
    const action = { input: 0n, secondaryInput: 1n, output: 0n, action: { case: "copy", value: { src: "/f", dest: "/g" } } };
    expect(copy.op.op).toMatchObject({ case: "file", value: { actions: [action] } });
    const run = graph.vertices.get(copy.inputs[0]!.digest)!;
    const meta = { args: ["/bin/sh", "-c", 'echo "$X"'], env: ["X=1"], cwd: "/" };
    expect(run.op.op).toMatchObject({ case: "exec", value: { meta, mounts: [{ dest: "/", input: 0n, output: 0n }] } });
    expect(graph.vertices.get(copy.inputs[1]!.digest)!.op.op).toMatchObject({ case: "source", value: { identifier: "local://context" } });
    expect(result.config).toMatchObject({ Env: ["X=1"], Cmd: ["x"] });
  });

  test("the same text gives the same digests, whatever its lines and names", async () => {
    const one = await graphOf("FROM a\nRUN x\n");
    const two = await graphOf("# c\n\nFROM a AS named\n\nRUN   x\n");
    expect(two.result.vertex).toBe(one.result.vertex);
    expect((await graphOf("FROM a\nRUN y\n")).result.vertex).not.toBe(one.result.vertex);
  });

  test("ARG counts for RUN from where it stands; proxies never change the rest", async () => {
    const text = "FROM a\nRUN before\nARG A\nRUN after\n";
    const one = await graphOf(text, { buildArgs: new Map([["A", "1"]]) });
    const two = await graphOf(text, { buildArgs: new Map([["A", "2"]]) });
    const before = (made: typeof one) => made.graph.vertices.get(made.result.vertex)!.inputs[0]!.digest;
    expect(before(one)).toBe(before(two));
    expect(one.result.vertex).not.toBe(two.result.vertex);
    expect(one.result.config.Env).toBeUndefined();
  });

  test("stages that nothing needs are not looked at", async () => {
    const asked: string[] = [];
    const resolveImage = async (ref: string) => {
      asked.push(ref);
      return image("a");
    };
    await graphOf("FROM a AS x\nFROM never\nRUN no\nFROM b\nCOPY --from=x /f /g\n", { resolveImage });
    expect(asked.sort()).toEqual(["a", "b"]);
  });

  test("ENV values of one instruction do not see each other; ENTRYPOINT drops the base's CMD", async () => {
    const images = { a: image("a", { Env: ["A=old"], Cmd: ["base"] }) };
    const { result } = await graphOf('FROM a\nENV A=new B=$A\nENTRYPOINT ["e"]\n', { images });
    expect(result.config.Env).toEqual(["A=new", "B=old"]);
    expect(result.config.Cmd).toBeUndefined();
    const kept = await graphOf('FROM a\nCMD ["own"]\nENTRYPOINT ["e"]\n', { images });
    expect(kept.result.config.Cmd).toEqual(["own"]);
  });

  test("mistakes name their line", async () => {
    await expect(graphOf("FROM a\nENV X=${Y\n")).rejects.toThrow("dockerfile parse error on line 2: syntax error: missing '}'");
    await expect(graphOf("FROM a\nEXPOSE 99999\n")).rejects.toThrow("invalid containerPort: 99999");
    await expect(graphOf("FROM a\nCOPY a b c\n")).rejects.toThrow("must be a directory and end with a /");
    await expect(graphOf("FROM a\nRUN --security=insecure x\n")).rejects.toThrow("security.insecure is not allowed");
    await expect(graphOf("FROM a\nRUN --network=host x\n")).rejects.toThrow("network.host is not allowed");
    await expect(graphOf("FROM $NOPE\n")).rejects.toThrow("base name ($NOPE) should not be blank");
  });

  test("thousands of stages and variables stay quick", async () => {
    let text = "FROM a AS s0\n";
    for (let i = 1; i < 2400; i++) text += `FROM s${i - 1} AS s${i}\nENV V${i}=${i}\n`;
    const start = performance.now();
    const { result } = await graphOf(text);
    expect(result.config.Env).toHaveLength(2399);
    expect(performance.now() - start).toBeLessThan(10_000);
  });
});
