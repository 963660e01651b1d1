// From a Dockerfile to operations: which stages are needed, what each instruction does to its stage. Nothing is executed; base images are looked up for what their
// configs say.
import { posix } from "node:path";
import { digestOf, formatPlatform, type Platform } from "../../oci/index.ts";
import {
  type Dockerfile,
  DockerfileError,
  type Instruction,
  type Linter,
  parseTriggers,
  type Range,
  type Stage,
  suggestion,
} from "../dockerfile/index.ts";
import type { BaseImage } from "../host.ts";
import { applyConfig } from "./config.ts";
import { type Contexts, canonical, type ImageFacts, imageOutput, type NamedContext } from "./context.ts";
import { copyNode, ownerMessage } from "./copy.ts";
import { type ArgInfo, basesOf, globalsOf } from "./globals.ts";
import type { Meta, Output } from "./nodes.ts";
import type { FrontendOptions } from "./options.ts";
import { runNode, type Wants } from "./run.ts";
import { type ScanTargets, scanTargets } from "./sbom.ts";
import { createNeeds, descriptionOf, sourcesOf, stageOf, targetOf } from "./stages.ts";
import { DEFAULT_PATH, expander, PROXIES, type StageState, setEnv, stageVariables } from "./state.ts";

export interface ConvertOptions
  extends Pick<FrontendOptions, "buildArgs" | "labels" | "target" | "noCache" | "run" | "resolveMode" | "epoch"> {
  platform: Platform;
  buildPlatform: Platform;
  /** The platform was asked for; else an image of another one will do. */
  platformGiven: boolean;
  /** Names of steps say the platform. */
  showPlatform: boolean;
  contexts: Contexts;
  linter: Linter;
  /** As the classic builder: further labels are an instruction of their own, directories that are made are root's. */
  classic: boolean;
  /** Looks an image up. */
  resolveImage(ref: string, platform: string | undefined): Promise<BaseImage>;
}

/** One instruction, for people who watch. */
export interface Step {
  text: string;
  range: Range;
  /** The tree after it. */
  output: Output | undefined;
  kind: "from" | "run" | "files" | "config";
  /** Names what was said so far, beside the tree. */
  said: string;
  image: ImageFacts | undefined;
  /** Triggers of the base image that are executed next. */
  triggers: number;
}

export interface Conversion {
  result: StageState;
  steps: Step[];
  /** What of the client's arguments nobody asked for. */
  unused: string[];
  /** ARGs that the target depends on, and what else it asks for. */
  args: ArgInfo[];
  wants: Wants;
  targetStage: Stage;
  scanned: ScanTargets;
}

const HISTORY_COMMENT = "buildkit.dockerfile.v0";

export async function convert(file: Dockerfile, options: ConvertOptions): Promise<Conversion> {
  const { contexts, linter } = options;
  const escapeChar = file.directives.escape;
  const steps: Step[] = [];
  const used = new Set<string>();
  const wants: Wants = { secrets: [], ssh: [], caches: [] };
  const target = targetOf(file, options.target);
  const targetStage = file.stages[target]!;
  const globals = globalsOf(file, options, options.target || targetStage.name || "default", used);
  for (const { original, range } of file.globals)
    steps.push({ text: original, range, output: undefined, kind: "config", said: original, image: undefined, triggers: 0 });
  const bases = basesOf(file, globals, linter);
  const infos = new Map<string, ArgInfo>();
  /** For a variable that nobody set: what may have been meant. */
  const undefinedVariable = (range: Range) => (name: string, declared: Iterable<string>) => {
    const near = suggestion(name, declared);
    linter.warn("UndefinedVar", range, `Usage of undefined variable '$${name}'${near ? ` (did you mean $${near}?)` : ""}`);
  };

  // A client's context may stand for a stage.
  const replaced = new Map<number, NamedContext>();
  for (const [index, { name }] of file.stages.entries()) {
    const context = name === undefined ? undefined : await contexts.named(name, bases[index]!.platform ?? options.platform);
    if (context) replaced.set(index, context);
  }

  const lookedUp = new Map<string, Promise<{ image: BaseImage; platform: Platform }>>();
  const resolve = (ref: string, wanted: Platform | undefined) => {
    const platform = wanted ?? options.platform;
    const asked = wanted || options.platformGiven ? formatPlatform(platform) : undefined;
    const key = `${ref} ${asked ?? ""}`;
    let found = lookedUp.get(key);
    if (!found) {
      found = options.resolveImage(ref, asked).then((image) => ({ image, platform }));
      found.catch(() => {});
      lookedUp.set(key, found);
    }
    return found;
  };
  const at = async <T>(range: Range, work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      if (error instanceof Error && !("range" in error)) Object.assign(error, { range });
      throw error;
    }
  };

  // Which stages are needed, in an order in which each comes after those that it needs.
  const imageOf = (index: number): string | undefined => {
    const { name } = bases[index]!;
    return replaced.has(index) || name === "scratch" || stageOf(file, name, index) >= 0 ? undefined : name;
  };
  const triggersOf = new Map<number, Instruction[]>();
  const { dependencies, fromStage, need, needed, order } = createNeeds(file, { bases, replaced, triggersOf });
  need(target);
  // Base images are looked up side by side; their triggers may need further stages.
  for (let known = 0; known < order.length; ) {
    const fresh = order.slice(known);
    known = order.length;
    const found = await Promise.all(
      fresh.map(async (index) => {
        const name = imageOf(index);
        if (name === undefined) return undefined;
        const { from } = file.stages[index]!;
        const wanted = bases[index]!.platform;
        const context = await contexts.named(name, wanted ?? options.platform);
        if (context) return { index, config: context.image?.config };
        return { index, config: (await at(from.range, resolve(name, wanted))).image.config };
      }),
    );
    for (const each of found) {
      const list = each?.config?.OnBuild ?? [];
      if (!each || list.length === 0) continue;
      const { range } = file.stages[each.index]!.from;
      const triggers = parseTriggers(list, range);
      triggersOf.set(each.index, triggers);
      for (const { ref } of triggers.flatMap(sourcesOf)) {
        const stage = fromStage(ref, range);
        if (stage === each.index) throw new DockerfileError(`circular dependency detected on stage: ${ref}`, range);
        if (stage >= 0) need(stage);
      }
    }
  }

  const states = new Map<number, StageState>();
  const empty = (platform: Platform): StageState => ({
    output: undefined,
    config: {},
    author: "",
    history: [],
    platform,
    args: new Map(),
    cmdSet: false,
    said: "",
    workdirSet: false,
  });
  const ofImage = (image: ImageFacts | undefined, output: Output | undefined, platform: Platform): StageState => ({
    ...empty(image?.platform.architecture ? image.platform : platform),
    output,
    config: structuredClone(image?.config ?? {}),
    history: (image?.history ?? []).map((entry) => ({ entry, output: undefined })),
    author: image?.author ?? "",
  });

  const stageTitle = (index: number): string => {
    const name = file.stages[index]!.name ?? (file.stages.length > 1 ? `stage-${index}` : "");
    const platform = bases[index]!.platform ?? options.platform;
    return [options.showPlatform ? formatPlatform(platform) : "", name].filter(Boolean).join(" ");
  };

  async function begin(index: number, title: (text: string) => string): Promise<{ state: StageState; image: ImageFacts | undefined }> {
    const base = bases[index]!;
    const { from } = file.stages[index]!;
    const platform = base.platform ?? options.platform;
    const context = replaced.get(index);
    if (context) return { state: ofImage(context.image, context.output, platform), image: context.image };
    const own = stageOf(file, base.name, index);
    if (own >= 0) {
      const parent = states.get(own)!;
      // Instructions replace what is in a config, they don't change it.
      const config = { ...parent.config };
      const triggers = config.OnBuild ?? [];
      delete config.OnBuild;
      if (triggers.length > 0) triggersOf.set(index, parseTriggers(triggers, from.range));
      return {
        state: { ...parent, config, history: [...parent.history], args: new Map(parent.args), cmdSet: false },
        image: undefined,
      };
    }
    // The classic builder leaves the directory open.
    if (base.name === "scratch")
      return { state: { ...empty(platform), config: options.classic ? {} : { WorkingDir: "/" } }, image: undefined };
    const named = await contexts.named(base.name, platform);
    if (named) {
      const state = ofImage(named.image, named.output, platform);
      delete state.config.OnBuild;
      return { state, image: named.image };
    }
    const { image } = await at(from.range, resolve(base.name, base.platform));
    const name = title(`FROM ${canonical(image.name ?? base.name, image.digest)}`);
    const output = image.layers.length === 0 ? undefined : imageOutput(base.name, image, image.platform, name, options.resolveMode);
    if (output) output.node.meta.range = from.range;
    const state = ofImage(image, output, platform);
    delete state.config.OnBuild;
    return { state, image };
  }
  const outputs = new Map<string, Promise<Output | undefined>>();
  function treeOf(ref: string, range: Range): Promise<Output | undefined> {
    const index = fromStage(ref, range);
    if (index >= 0) return Promise.resolve(states.get(index)!.output);
    let found = outputs.get(ref);
    if (!found) {
      found = (async () => {
        const context = await contexts.named(ref, options.platform);
        if (context) return context.output;
        if (ref === "scratch") return undefined;
        const { image } = await at(range, resolve(ref, undefined));
        if (image.layers.length === 0) return undefined;
        return imageOutput(ref, image, image.platform, `FROM ${canonical(image.name ?? ref, image.digest)}`, options.resolveMode);
      })();
      outputs.set(ref, found);
    }
    return found;
  }

  interface Running {
    state: StageState;
    index: number;
    meta(text: string, shown?: string): Meta;
    last: Map<string, Range>;
  }

  /** All but the last of these in a stage are lost. */
  function once(running: Running, instruction: Instruction): void {
    const before = running.last.get(instruction.kind);
    if (before)
      linter.warn(
        "MultipleInstructionsDisallowed",
        before,
        `Multiple ${instruction.kind} instructions should not be used in the same stage because only the last one will be used`,
      );
    running.last.set(instruction.kind, instruction.range);
  }

  async function execute(running: Running, instruction: Instruction): Promise<void> {
    const { state } = running;
    const { range, original } = instruction;
    const expand = expander(escapeChar, range, stageVariables(state, undefinedVariable(range)));
    const created = options.epoch === undefined ? {} : { created: new Date(options.epoch * 1000).toISOString() };
    const note = (text: string, output: Output | undefined) =>
      state.history.push({
        entry: { ...created, created_by: text, comment: HISTORY_COMMENT, ...(output === undefined ? { empty_layer: true } : {}) },
        output,
      });
    state.said = digestOf(`${state.said}\n${original}`);
    let kind: Step["kind"] = "config";
    const common = {
      state,
      expand,
      meta: (text: string, shown?: string): Meta => ({ ...running.meta(text, shown), range }),
      tree: (ref: string) => treeOf(ref, range),
      context: (path: string) => contexts.main(path),
    };
    if (instruction.kind === "RUN") {
      kind = "run";
      const made = await runNode({ ...common, instruction, settings: options.run, buildArgs: options.buildArgs, escapeChar, wants });
      state.output = made.output;
      note(made.text, made.output);
    } else if (instruction.kind === "COPY" || instruction.kind === "ADD") {
      kind = "files";
      const verb = instruction.kind === "COPY" ? "Copy" : "Add";
      const wanted = (path: string) => {
        const clean = posix.normalize(path).replace(/^\/+|\/+$/g, "");
        if (clean !== "" && clean !== "." && contexts.ignored?.(clean))
          linter.warn("CopyIgnoredFile", range, `Attempting to ${verb} file ${JSON.stringify(path)} that is excluded by .dockerignore`);
      };
      const made = await copyNode({ ...common, instruction, escapeChar, rootAbove: options.classic, wanted });
      state.output = made.output;
      note(made.text, made.output);
    } else if (instruction.kind === "ARG") {
      const said: string[] = [];
      for (const { name, value } of instruction.pairs) {
        used.add(name);
        const given = options.buildArgs.get(name);
        const inherited = value === undefined && globals.declared.has(name) ? globals.values.get(name) : undefined;
        const final = given ?? (value === undefined ? inherited : expand.word(value));
        state.args.set(name, final);
        const global = globals.infos.get(name);
        if (inherited !== undefined && given === undefined && global) infos.set(name, global);
        else if (inherited === undefined || global)
          infos.set(name, {
            name,
            value: final,
            description: descriptionOf(instruction.comments, name) || global?.description || "",
            range: value === undefined && global ? global.range : range,
          });
        said.push(`${name}${final === undefined ? "" : `=${final}`}`);
      }
      note(`ARG ${said.join(" ")}`, undefined);
    } else {
      if (instruction.kind === "CMD" || instruction.kind === "ENTRYPOINT" || instruction.kind === "HEALTHCHECK") once(running, instruction);
      if (
        (instruction.kind === "CMD" || instruction.kind === "ENTRYPOINT") &&
        instruction.command.form === "shell" &&
        !state.config.Shell?.length
      )
        linter.warn(
          "JSONArgsRecommended",
          range,
          `JSON arguments recommended for ${instruction.kind} to prevent unintended behavior related to OS signals`,
        );
      const text = applyConfig(state, instruction, expand);
      if (instruction.kind === "WORKDIR") {
        const given = expand.word(instruction.value);
        if (!state.workdirSet && !posix.isAbsolute(given))
          linter.warn(
            "WorkdirRelativePath",
            range,
            `Relative workdir ${JSON.stringify(given)} can have unexpected results if the base image changes`,
          );
        const path = state.config.WorkingDir ?? "/";
        if (path !== "/") {
          kind = "files";
          const base = state.output ? 0n : -1n;
          const user = options.classic ? "" : (state.config.User ?? "");
          const mkdir = { path, mode: 0o755, makeParents: true, timestamp: -1n, ...(user ? { owner: ownerMessage(user, base) } : {}) };
          const action = { case: "mkdir" as const, value: mkdir as never };
          state.output = {
            node: {
              op: { case: "file", value: { actions: [{ input: base, secondaryInput: -1n, output: 0n, action }] } },
              inputs: state.output ? [state.output] : [],
              platform: state.platform,
              meta: common.meta(`WORKDIR ${path}`),
            },
            index: 0,
          };
        } else running.meta("");
      }
      note(text, instruction.kind === "WORKDIR" && kind === "files" ? state.output : undefined);
    }
    steps.push({ text: original, range, output: state.output, kind, said: state.said, image: undefined, triggers: 0 });
  }

  const ignoresCache = (index: number): boolean => {
    const { noCache } = options;
    return noCache !== undefined && (noCache.length === 0 || noCache.some((name) => name.toLowerCase() === file.stages[index]!.name));
  };
  const counts = (instruction: Instruction) => ["RUN", "COPY", "ADD", "WORKDIR"].includes(instruction.kind);
  // People read from top to bottom: the file's order, but for what must come earlier.
  const sorted = [...needed].sort((a, b) => a - b);
  const before = new Map(sorted.map((index) => [index, dependencies(index).map(({ stage }) => stage)]));
  const inOrder = sorted.every((index) => before.get(index)!.every((stage) => stage < index));
  const waiting = new Set(sorted);
  while (waiting.size > 0) {
    let index = waiting.values().next().value!;
    if (!inOrder)
      for (const each of waiting)
        if (before.get(each)!.every((stage) => states.has(stage))) {
          index = each;
          break;
        }
    waiting.delete(index);
    const { from, instructions } = file.stages[index]!;
    const own = stageOf(file, bases[index]!.name, index) >= 0;
    const title = stageTitle(index);
    let number = 0;
    let total = bases[index]!.name === "scratch" || own ? 0 : 1;
    total += [...(triggersOf.get(index) ?? []), ...instructions].filter(counts).length;
    const prefixed = (text: string) => {
      number++;
      const count = `${String(number).padStart(String(total).length)}/${total}`;
      return `[${[title, count].filter(Boolean).join(" ")}] ${text}`;
    };
    const { state, image } = await begin(index, prefixed);
    if (image && number === 0) number = 1;
    const triggers = triggersOf.get(index) ?? [];
    if (!state.config.Env?.some((entry) => entry.startsWith("PATH=")) && state.platform.os !== "windows" && !replaced.has(index))
      setEnv(state.config, "PATH", DEFAULT_PATH);
    const { range, original } = from;
    steps.push({ text: original, range, output: state.output, kind: "from", said: state.said, image, triggers: triggers.length });
    states.set(index, state);
    if (replaced.has(index)) continue;
    const ignoreCache = ignoresCache(index);
    const running: Running = {
      state,
      index,
      last: new Map(),
      meta: (text, shown = text) => ({ name: prefixed(shown), command: text, ...(ignoreCache ? { ignoreCache } : {}) }),
    };
    for (const instruction of [...triggers, ...instructions]) await execute(running, instruction);
  }

  const result = states.get(target)!;
  if (Object.keys(options.labels).length > 0) {
    result.config = { ...result.config, Labels: { ...result.config.Labels, ...options.labels } };
    if (options.classic) {
      const text = `LABEL ${Object.entries(options.labels)
        .map(([name, value]) => `${name}=${value}`)
        .join(" ")}`;
      result.history.push({ entry: { created_by: text, comment: HISTORY_COMMENT, empty_layer: true }, output: undefined });
      const { range } = targetStage.from;
      steps.push({ text, range, output: result.output, kind: "config", said: result.said, image: undefined, triggers: 0 });
    }
  }
  const scanStage = (index: number) => {
    const { output, args } = states.get(index)!;
    return { name: file.stages[index]!.name ?? `stage-${index}`, output, args, ignoreCache: ignoresCache(index) };
  };
  const others = sorted.filter((index) => index !== target && !replaced.has(index)).map(scanStage);
  const scanned = scanTargets(scanStage(target), others, contexts.whole, globals.values);
  const predefined = (name: string) =>
    PROXIES.includes(name) ||
    /^(TARGET|BUILD)(PLATFORM|OS|OSVERSION|ARCH|VARIANT)$|^TARGETSTAGE$|^SOURCE_DATE_EPOCH$|^BUILDKIT_/.test(name);
  const unused = [...options.buildArgs.keys()].filter((name) => !used.has(name) && !predefined(name)).sort();
  return { result, steps, unused, args: [...infos.values()], wants, targetStage, scanned };
}
