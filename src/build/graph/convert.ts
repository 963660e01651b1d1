// From a Dockerfile to a graph: which stages are needed, what each instruction does to its stage. Nothing is executed; base images are looked up for what
// their configs say.

import { digestOf } from "../../oci/index.ts";
import { type Dockerfile, DockerfileError, type Instruction, parseTriggers, type Range, type Stage } from "../dockerfile/index.ts";
import type { BaseImage } from "../host.ts";
import { applyConfig } from "./config.ts";
import { copyVertex, edgeOf, runVertex } from "./files.ts";
import { createGraph, type Graph } from "./llb.ts";
import { chownOpt, fileOp, sourceOp } from "./operations.ts";
import { expander, PROXIES, type StageState, stageVariables } from "./state.ts";

export interface ConvertOptions {
  buildArgs: ReadonlyMap<string, string>;
  labels: Record<string, string>;
  target: string;
  platform: { os: string; architecture: string; variant?: string };
  network: string;
  /** What the client may ask for beyond a sandbox: "security.insecure", "network.host". */
  entitlements: ReadonlySet<string>;
  /** Looks an image up, pulling it where needed. */
  resolveImage(ref: string, platform: string | undefined): Promise<BaseImage>;
}

/** One instruction, for people who watch. */
export interface Step {
  text: string;
  range: Range;
  /** The tree after it; "" is the empty one. */
  vertex: string;
  kind: "from" | "run" | "files" | "config";
  /** Names what was said so far, beside the tree. */
  said: string;
  image: BaseImage | undefined;
  /** Triggers of the base image that are executed next. */
  triggers: number;
}

export interface Conversion {
  graph: Graph;
  steps: Step[];
  result: StageState;
  /** Base images by the identifiers of their source vertices. */
  images: ReadonlyMap<string, BaseImage>;
  /** Where each vertex comes from. */
  origins: ReadonlyMap<string, { range: Range; text: string }>;
  warnings: string[];
}

function platformArgs(platform: ConvertOptions["platform"], prefix: string): [string, string][] {
  const { os, architecture, variant = "" } = platform;
  return [
    [`${prefix}PLATFORM`, [os, architecture, variant].filter(Boolean).join("/")],
    [`${prefix}OS`, os],
    [`${prefix}ARCH`, architecture],
    [`${prefix}VARIANT`, variant],
  ];
}

/** The stage that a name or number means, before stage `before`; -1 where it is none. */
function stageOf(file: Dockerfile, ref: string, before: number): number {
  const name = ref.toLowerCase();
  for (let i = before - 1; i >= 0; i--) if (file.stages[i]!.name === name) return i;
  return /^\d+$/.test(ref) && Number(ref) < before ? Number(ref) : -1;
}

function sourcesOf(instruction: Instruction): string[] {
  if (instruction.kind === "COPY" || instruction.kind === "ADD")
    return instruction.flags.from === undefined ? [] : [instruction.flags.from];
  if (instruction.kind === "RUN") return instruction.mounts.flatMap(({ options }) => (options.from === undefined ? [] : [options.from]));
  return [];
}

export async function convert(file: Dockerfile, options: ConvertOptions): Promise<Conversion> {
  const graph = createGraph();
  const steps: Step[] = [];
  const images = new Map<string, BaseImage>();
  const origins = new Map<string, { range: Range; text: string }>();
  const warnings: string[] = [];
  const used = new Set<string>();
  const escapeChar = file.directives.escape;

  // What FROM lines can use: platforms, and ARGs before the first FROM.
  const platform = new Map([...platformArgs(options.platform, "TARGET"), ...platformArgs(options.platform, "BUILD")]);
  const globals = new Map(platform);
  const declared = new Set(platform.keys());
  for (const { pairs, range, original } of file.globals) {
    for (const { name, value } of pairs) {
      const given = options.buildArgs.get(name);
      used.add(name);
      declared.add(name);
      const expanded = value === undefined ? undefined : expander(escapeChar, range, (each) => globals.get(each)).word(value);
      const final = given ?? expanded;
      if (final !== undefined) globals.set(name, final);
    }
    steps.push({ text: original, range, vertex: "", kind: "config", said: original, image: undefined, triggers: 0 });
  }

  const target = options.target === "" ? file.stages.length - 1 : stageOf(file, options.target, file.stages.length);
  if (target < 0)
    throw new DockerfileError(`target stage ${JSON.stringify(options.target)} could not be found`, file.stages.at(-1)!.from.range);

  const bases = file.stages.map(({ from }) => {
    const expand = expander(escapeChar, from.range, (name) => globals.get(name));
    const name = expand.word(from.image);
    if (name === "") throw new DockerfileError(`base name (${from.image}) should not be blank`, from.range);
    return { name, platform: from.platform === undefined ? undefined : expand.word(from.platform) || undefined };
  });

  const needed = new Set([target]);
  // A set gives what is added while one goes through it, too.
  for (const index of needed) {
    for (const ref of [bases[index]!.name, ...file.stages[index]!.instructions.flatMap(sourcesOf)]) {
      const other = stageOf(file, ref, index);
      if (other >= 0) needed.add(other);
    }
  }

  const lookedUp = new Map<string, Promise<BaseImage>>();
  const resolve = (ref: string, wanted: string | undefined): Promise<BaseImage> => {
    const key = `${ref} ${wanted ?? ""}`;
    let found = lookedUp.get(key);
    if (!found) {
      found = options.resolveImage(ref, wanted);
      lookedUp.set(key, found);
    }
    return found;
  };
  const imageVertex = (image: BaseImage): string => {
    const identifier = `docker-image://${image.id}`;
    images.set(identifier, image);
    return image.layers.length === 0 ? "" : graph.add(sourceOp(identifier));
  };
  // Base images are looked up side by side.
  const wanted = [...needed].filter((index) => bases[index]!.name !== "scratch" && stageOf(file, bases[index]!.name, index) < 0);
  await Promise.all(wanted.map((index) => resolve(bases[index]!.name, bases[index]!.platform)));

  const states = new Map<number, StageState>();

  async function begin(index: number, stage: Stage): Promise<{ state: StageState; triggers: string[]; image: BaseImage | undefined }> {
    const base = bases[index]!;
    const own = stageOf(file, base.name, index);
    if (own >= 0) {
      const from = states.get(own)!;
      const config = structuredClone(from.config);
      const triggers = config.OnBuild ?? [];
      delete config.OnBuild;
      return {
        state: { ...from, config, history: [...from.history], args: new Map(), cmdSet: false, said: from.said },
        triggers,
        image: undefined,
      };
    }
    const empty = {
      vertex: "",
      config: {},
      author: "",
      history: [],
      platform: options.platform,
      args: new Map<string, string>(),
      cmdSet: false,
      said: "",
    };
    if (base.name === "scratch") return { state: empty, triggers: [], image: undefined };
    const image = await resolve(base.name, base.platform).catch((error: unknown) => {
      if (error instanceof Error) Object.assign(error, { range: stage.from.range });
      throw error;
    });
    const config = structuredClone(image.config);
    const triggers = config.OnBuild ?? [];
    delete config.OnBuild;
    const history = image.history.map((entry) => ({ entry, vertex: undefined }));
    return {
      state: { ...empty, vertex: imageVertex(image), config, history, platform: image.platform, author: image.author },
      triggers,
      image,
    };
  }

  const treeOf = async (ref: string, index: number): Promise<string> => {
    const other = stageOf(file, ref, index);
    if (other >= 0) return states.get(other)!.vertex;
    if (ref === "scratch") return "";
    return imageVertex(await resolve(ref, undefined));
  };

  async function execute(state: StageState, instruction: Instruction, index: number): Promise<void> {
    const { range, original } = instruction;
    const expand = expander(escapeChar, range, stageVariables(state));
    const note = (text: string, vertex: string | undefined) =>
      state.history.push({
        entry: { created_by: text, comment: "buildkit.dockerfile.v0", ...(vertex === undefined ? { empty_layer: true } : {}) },
        vertex,
      });
    state.said = digestOf(`${state.said}\n${original}`);
    let kind: Step["kind"] = "config";
    if (instruction.kind === "RUN") {
      kind = "run";
      const wanted = [
        ...(instruction.security === "insecure" ? ["security.insecure"] : []),
        ...(instruction.network === "host" && options.network !== "host" ? ["network.host"] : []),
      ].find((each) => !options.entitlements.has(each));
      if (wanted) throw new DockerfileError(`${wanted} is not allowed`, range);
      const made = await runVertex({
        graph,
        state,
        instruction,
        expand,
        buildArgs: options.buildArgs,
        network: options.network,
        tree: (ref) => treeOf(ref, index),
      });
      state.vertex = made.vertex;
      note(made.text, made.vertex);
    } else if (instruction.kind === "COPY" || instruction.kind === "ADD") {
      kind = "files";
      const made = await copyVertex({ graph, state, instruction, expand, escapeChar, tree: (ref) => treeOf(ref, index) });
      state.vertex = made.vertex;
      note(made.text, made.vertex);
    } else if (instruction.kind === "ARG") {
      for (const { name, value } of instruction.pairs) {
        used.add(name);
        const given = options.buildArgs.get(name);
        const inherited = value === undefined && declared.has(name) ? globals.get(name) : undefined;
        const final = given ?? (value === undefined ? inherited : expand.word(value));
        if (final !== undefined) state.args.set(name, final);
        note(`ARG ${name}${final === undefined ? "" : `=${final}`}`, undefined);
      }
    } else {
      const text = applyConfig(state, instruction, expand);
      if (instruction.kind === "WORKDIR") {
        const path = state.config.WorkingDir ?? "/";
        if (path !== "/") {
          const base = edgeOf(state.vertex);
          const user = state.config.User ?? "";
          const owner = user === "" ? {} : { owner: chownOpt(user, base) };
          state.vertex = graph.add(fileOp(base, [{ mkdir: { path, mode: 0o755, makeParents: true, ...owner } }]));
          kind = "files";
        }
      }
      note(text, instruction.kind === "WORKDIR" && kind === "files" ? state.vertex : undefined);
    }
    if (kind !== "config" && !origins.has(state.vertex)) origins.set(state.vertex, { range, text: original });
    steps.push({
      text: original,
      range,
      vertex: state.vertex,
      kind,
      said: state.said,
      image: undefined,
      triggers: 0,
    });
  }

  for (const [index, stage] of file.stages.entries()) {
    if (!needed.has(index)) continue;
    const { state, triggers, image } = await begin(index, stage);
    const { range, original } = stage.from;
    steps.push({
      text: original,
      range,
      vertex: state.vertex,
      kind: "from",
      said: state.said,
      image,
      triggers: triggers.length,
    });
    if (state.vertex !== "" && !origins.has(state.vertex)) origins.set(state.vertex, { range, text: original });
    for (const instruction of [...parseTriggers(triggers, range), ...stage.instructions]) await execute(state, instruction, index);
    states.set(index, state);
  }

  const result = states.get(target)!;
  const labels = Object.entries(options.labels);
  if (labels.length > 0) {
    result.config.Labels = { ...result.config.Labels, ...options.labels };
    const text = `LABEL ${labels.map(([name, value]) => `${name}=${value}`).join(" ")}`;
    result.history.push({ entry: { created_by: text, comment: "buildkit.dockerfile.v0", empty_layer: true }, vertex: undefined });
    const { range } = file.stages[target]!.from;
    steps.push({
      text,
      range,
      vertex: result.vertex,
      kind: "config",
      said: result.said,
      image: undefined,
      triggers: 0,
    });
  }
  const unused = [...options.buildArgs.keys()].filter(
    (name) =>
      !used.has(name) && !PROXIES.includes(name) && !platform.has(name) && name !== "SOURCE_DATE_EPOCH" && !name.startsWith("BUILDKIT_"),
  );
  if (unused.length > 0) warnings.push(`One or more build-args [${unused.sort().join(" ")}] were not consumed`);
  return { graph, steps, result, images, origins, warnings };
}
