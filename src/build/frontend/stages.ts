// Stages by their names and numbers, what each needs of others, and an order in which all that is needed comes before what needs it.
import { type Dockerfile, DockerfileError, type Instruction, type Range, suggestion } from "../dockerfile/index.ts";

const named = new WeakMap<Dockerfile, Map<string, number[]>>();

/** Numbers of the stages of a name, in their order. */
function numbersOf(file: Dockerfile, name: string): readonly number[] {
  let names = named.get(file);
  if (!names) {
    names = new Map();
    for (const [i, stage] of file.stages.entries())
      if (stage.name !== undefined) names.set(stage.name, [...(names.get(stage.name) ?? []), i]);
    named.set(file, names);
  }
  return names.get(name) ?? [];
}

/** The last stage of that name before stage `before`, or the one of that number; -1 where there is none. */
export function stageOf(file: Dockerfile, ref: string, before = file.stages.length): number {
  const found = numbersOf(file, ref.toLowerCase()).findLast((number) => number < before);
  if (found !== undefined) return found;
  return /^\d{1,6}$/.test(ref) && Number(ref) < before ? Number(ref) : -1;
}

export function sourcesOf(instruction: Instruction): { ref: string; range: Range }[] {
  const { range } = instruction;
  if (instruction.kind === "COPY" || instruction.kind === "ADD")
    return instruction.flags.from === undefined ? [] : [{ ref: instruction.flags.from, range }];
  if (instruction.kind === "RUN")
    return instruction.mounts.flatMap(({ options }) => (options.from === undefined ? [] : [{ ref: options.from, range }]));
  return [];
}

/** The description that stands above an ARG or a stage: "# name what it is for". */
export function descriptionOf(comments: readonly string[], name: string): string {
  return (
    comments
      .find((line) => line.startsWith(`${name} `))
      ?.slice(name.length + 1)
      .trim() ?? ""
  );
}

export function targetOf(file: Dockerfile, name: string): number {
  const index = name === "" ? file.stages.length - 1 : stageOf(file, name);
  if (index >= 0) return index;
  const near = suggestion(
    name,
    file.stages.flatMap((stage) => stage.name ?? []),
  );
  const hint = near ? ` (did you mean ${near}?)` : "";
  throw new DockerfileError(`target stage ${JSON.stringify(name)} could not be found${hint}`, file.stages.at(-1)!.from.range);
}

export interface NeedOptions {
  bases: readonly { name: string }[];
  /** Stages that a context of the client stands for. */
  replaced: ReadonlyMap<number, unknown>;
  /** Instructions that base images bring, by stage; may grow. */
  triggersOf: ReadonlyMap<number, Instruction[]>;
}

export interface Needs {
  dependencies(index: number): { stage: number; range: Range }[];
  /** The stage that a `from` means; -1 where it is none of this file. DockerfileError for a number that there is none of. */
  fromStage(ref: string, range: Range): number;
  /** Adds a stage and all that it needs. DockerfileError where they need each other. */
  need(root: number): void;
  readonly needed: ReadonlySet<number>;
  readonly order: readonly number[];
}

export function createNeeds(file: Dockerfile, { bases, replaced, triggersOf }: NeedOptions): Needs {
  const dependencies = (index: number): { stage: number; range: Range }[] => {
    if (replaced.has(index)) return [];
    const { from, instructions } = file.stages[index]!;
    const base = stageOf(file, bases[index]!.name, index);
    const refs = [...(triggersOf.get(index) ?? []), ...instructions].flatMap(sourcesOf).map(({ ref, range }) => ({
      stage: fromStage(ref, range),
      range,
    }));
    return [{ stage: base, range: from.range }, ...refs].filter(({ stage }) => stage >= 0);
  };
  function fromStage(ref: string, range: Range): number {
    const index = stageOf(file, ref);
    if (index < 0 && /^\d+$/.test(ref)) throw new DockerfileError(`invalid stage index ${ref}`, range);
    return index;
  }
  const order: number[] = [];
  const needed = new Set<number>();
  function need(root: number): void {
    const open = new Set<number>();
    const stack: { index: number; left: { stage: number; range: Range }[] }[] = [];
    const enter = (index: number) => {
      needed.add(index);
      open.add(index);
      stack.push({ index, left: dependencies(index) });
    };
    if (needed.has(root)) return;
    enter(root);
    for (let top = stack.at(-1); top; top = stack.at(-1)) {
      const next = top.left.shift();
      if (!next) {
        open.delete(top.index);
        order.push(top.index);
        stack.pop();
      } else if (open.has(next.stage)) {
        const name = file.stages[next.stage]!.name ?? String(next.stage);
        throw new DockerfileError(`circular dependency detected on stage: ${name}`, next.range);
      } else if (!needed.has(next.stage)) enter(next.stage);
    }
  }
  return { dependencies, fromStage, need, needed, order };
}
