// Plays a template over data. Data is plain JavaScript: an object is a Go map, or a struct where it carries STRUCT; a function is a method.
import { arity, functions, type TemplateFunction, truth } from "./functions.ts";
import { lineOf } from "./lex.ts";
import type { Command, Expression, Node, Pipe, Template } from "./parse.ts";
import { show, showCommand } from "./parse.ts";
import { print, STRUCT, typeName } from "./print.ts";

export interface ExecuteOptions {
  /** More functions, or others in place of the usual ones. */
  functions?: Record<string, TemplateFunction> | undefined;
  /** What a map gives for a key that it lacks: undefined prints <no value>; throw to refuse. */
  missing?: ((map: object, key: string) => unknown) | undefined;
}

/** A template that failed while it ran: "template: NAME:LINE:COLUMN: executing "NAME" at <…>: …". */
export class TemplateError extends Error {
  override name = "TemplateError";
}

type Scope = [name: string, value: unknown][];

class Break extends Error {}
class Continue extends Error {}

export function execute(template: Template, data: unknown, options: ExecuteOptions = {}): string {
  const lookup = (name: string): TemplateFunction => options.functions?.[name] ?? functions[name]!;
  let out = "";

  const fail = (at: number, context: string, error: unknown): never => {
    if (error instanceof TemplateError || error instanceof Break || error instanceof Continue) throw error;
    const start = template.source.lastIndexOf("\n", at - 1) + 1;
    const where = `${template.name}:${lineOf(template.source, at)}:${at - start}`;
    throw new TemplateError(`template: ${where}: executing "${template.name}" at <${context}>: ${(error as Error).message}`, {
      cause: error,
    });
  };

  function walk(nodes: Node[], dot: unknown, scope: Scope): void {
    for (const node of nodes) {
      switch (node.kind) {
        case "text":
          out += node.text;
          break;
        case "action": {
          const value = evaluatePipe(node.pipe, dot, scope);
          if (node.pipe.declares.length === 0) out += print(value);
          break;
        }
        case "if":
        case "with": {
          const depth = scope.length;
          const value = evaluatePipe(node.pipe, dot, scope);
          if (truth(value)) walk(node.body, node.kind === "with" ? value : dot, scope);
          else if (node.otherwise) walk(node.otherwise, dot, scope);
          scope.length = depth;
          break;
        }
        case "range":
          walkRange(node, dot, scope);
          break;
        case "break":
          throw new Break();
        case "continue":
          throw new Continue();
        case "template": {
          const body = template.defined.get(node.name);
          const text = `{{template ${JSON.stringify(node.name)}}}`;
          if (!body) {
            fail(node.at + 9, text, new Error(`template ${JSON.stringify(node.name)} not defined`));
            break;
          }
          const value = node.pipe ? evaluatePipe(node.pipe, dot, scope) : undefined;
          walk(body, value, [["$", value]]);
        }
      }
    }
  }

  function walkRange(node: Node & { kind: "range" | "if" | "with" }, dot: unknown, scope: Scope): void {
    const depth = scope.length;
    const pipe: Pipe = { ...node.pipe, declares: [] };
    const value = evaluatePipe(pipe, dot, scope);
    const entries: [unknown, unknown][] = [];
    if (Array.isArray(value)) entries.push(...value.entries());
    else if (typeof value === "number") for (let i = 0; i < value; i++) entries.push([i, i]);
    else if (value !== null && value !== undefined && (typeof value !== "object" || STRUCT in value)) {
      fail(node.pipe.at, showCommand(node.pipe.commands.at(-1)!), new Error(`range can't iterate over ${print(value)}`));
    } else if (value) {
      const map = value as Record<string, unknown>;
      for (const key of Object.keys(map).sort()) entries.push([key, map[key]]);
    }
    if (entries.length === 0 && node.otherwise) walk(node.otherwise, dot, scope);
    for (const [key, item] of entries) {
      const names = node.pipe.declares;
      if (node.pipe.assigns) {
        if (names.length === 2) assign(scope, names[0]!, key);
        if (names.length > 0) assign(scope, names.at(-1)!, item);
      } else {
        if (names.length === 2) scope.push([names[0]!, key]);
        if (names.length > 0) scope.push([names.at(-1)!, item]);
      }
      try {
        walk(node.body, item, scope);
      } catch (error) {
        if (error instanceof Break) break;
        if (!(error instanceof Continue)) throw error;
      } finally {
        scope.length = depth;
      }
    }
    scope.length = depth;
  }

  function assign(scope: Scope, name: string, value: unknown): void {
    scope.findLast(([n]) => n === name)![1] = value;
  }

  function evaluatePipe(pipe: Pipe, dot: unknown, scope: Scope): unknown {
    let value: unknown;
    pipe.commands.forEach((command, i) => {
      value = evaluateCommand(command, dot, scope, i === 0 ? undefined : { value });
    });
    for (const name of pipe.declares) {
      if (pipe.assigns) assign(scope, name, value);
      else scope.push([name, value]);
    }
    return value;
  }

  function evaluateCommand(command: Command, dot: unknown, scope: Scope, final: { value: unknown } | undefined): unknown {
    const [first, ...rest] = command.args as [Expression, ...Expression[]];
    const more = () => [...rest.map((arg) => evaluate(arg, dot, scope)), ...(final ? [final.value] : [])];
    if (first.kind === "function") return call(first, command, rest, dot, scope, final);
    if (first.kind === "field" || first.kind === "variable" || first.kind === "chain") {
      return evaluateChain(first, dot, scope, rest.length > 0 || final ? more() : []);
    }
    if (rest.length > 0 || final) fail(first.at, show(first), new Error(`can't give argument to non-function ${show(first)}`));
    if (first.kind === "nil") fail(first.at, "nil", new Error("nil is not a command"));
    return evaluate(first, dot, scope);
  }

  function call(
    first: Expression & { kind: "function" },
    command: Command,
    rest: Expression[],
    dot: unknown,
    scope: Scope,
    final: { value: unknown } | undefined,
  ): unknown {
    const { name } = first;
    if ((name === "and" || name === "or") && !options.functions?.[name]) {
      let value: unknown;
      for (const arg of rest) {
        value = evaluate(arg, dot, scope);
        if (truth(value) === (name === "or")) return value;
      }
      return final ? final.value : value;
    }
    const args = [...rest.map((arg) => evaluate(arg, dot, scope)), ...(final ? [final.value] : [])];
    const limits = arity[name];
    if (limits && (args.length < limits[0] || args.length > limits[1])) {
      fail(first.at, name, new Error(`wrong number of args for ${name}: want ${limits[0]} got ${args.length}`));
    }
    try {
      return lookup(name)(...args);
    } catch (error) {
      const message = (error as Error).message;
      const wrongArgument = message.startsWith("wrong type for value") && rest[0];
      if (wrongArgument) return fail(wrongArgument.at, show(wrongArgument), error);
      if (message.startsWith("non-function"))
        return fail(
          first.at,
          showCommand(command),
          new Error(`error calling call: non-function ${rest[0] ? show(rest[0]) : ""} of type ${typeName(args[0])}`),
        );
      return fail(first.at, showCommand(command), new Error(`error calling ${name}: ${message}`));
    }
  }

  function evaluate(e: Expression, dot: unknown, scope: Scope): unknown {
    switch (e.kind) {
      case "dot":
        return dot;
      case "nil":
        return null;
      case "literal":
        return e.value;
      case "pipe":
        return evaluatePipe(e.pipe, dot, [...scope]);
      case "function":
        return call(e, { at: e.at, args: [e] }, [], dot, scope, undefined);
      default:
        return evaluateChain(e, dot, scope, []);
    }
  }

  function evaluateChain(e: Expression & { kind: "field" | "variable" | "chain" }, dot: unknown, scope: Scope, args: unknown[]): unknown {
    let value = e.kind === "field" ? dot : e.kind === "variable" ? scope.findLast(([n]) => n === e.name)![1] : evaluate(e.base, dot, scope);
    e.names.forEach((name, i) => {
      try {
        value = field(value, name, i === e.names.length - 1 ? args : [], i > 0 ? e.names[i - 1] : undefined);
      } catch (error) {
        fail(e.at, show(e), error);
      }
    });
    return value;
  }

  function field(receiver: unknown, name: string, args: unknown[], previous: string | undefined): unknown {
    if (receiver === null || receiver === undefined) {
      if (previous !== undefined && options.missing) throw new Error(`map has no entry for key ${JSON.stringify(previous)}`);
      throw new Error(`nil data; no entry for key ${JSON.stringify(name)}`);
    }
    if (typeof receiver !== "object" || Array.isArray(receiver)) {
      throw new Error(`can't evaluate field ${name} in type ${options.missing ? "interface {}" : typeName(receiver)}`);
    }
    const map = receiver as Record<string, unknown> & { [STRUCT]?: string };
    if (Object.hasOwn(map, name)) {
      const value = map[name];
      if (typeof value === "function") {
        if (value.length !== args.length) throw new Error(`wrong number of args for ${name}: want ${value.length} got ${args.length}`);
        return (value as TemplateFunction)(...args);
      }
      if (args.length > 0) throw new Error(`${name} is not a method but has arguments`);
      return value;
    }
    if (map[STRUCT] !== undefined) throw new Error(`can't evaluate field ${name} in type ${map[STRUCT]}`);
    return options.missing?.(map, name);
  }

  walk(template.root, data, [["$", data]]);
  return out;
}
