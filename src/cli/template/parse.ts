// Templates as a tree. Grammar and messages are those of Go's text/template/parse, as far as users see them.
import { lex, lineOf, TemplateSyntaxError, type Token } from "./lex.ts";

export type Expression =
  | { kind: "dot"; at: number }
  | { kind: "nil"; at: number }
  | { kind: "literal"; at: number; value: unknown; text: string }
  | { kind: "field"; at: number; names: string[] }
  | { kind: "variable"; at: number; name: string; names: string[] }
  | { kind: "function"; at: number; name: string }
  | { kind: "chain"; at: number; base: Expression; names: string[] }
  | { kind: "pipe"; at: number; pipe: Pipe };

export interface Command {
  at: number;
  args: Expression[];
}

export interface Pipe {
  at: number;
  declares: string[];
  assigns: boolean;
  commands: Command[];
}

export type Node =
  | { kind: "text"; text: string }
  | { kind: "action"; at: number; pipe: Pipe }
  | { kind: "if" | "with" | "range"; at: number; pipe: Pipe; body: Node[]; otherwise: Node[] | undefined }
  | { kind: "break" | "continue"; at: number }
  | { kind: "template"; at: number; name: string; pipe: Pipe | undefined };

export interface Template {
  name: string;
  source: string;
  root: Node[];
  defined: Map<string, Node[]>;
}

const CLAUSES = new Set(["if", "with", "range", "end", "else", "define", "template", "block", "break", "continue"]);

/** TemplateSyntaxError where the source is not a template, or names a function that `functions` lacks. */
export function parse(source: string, name: string, functions: (name: string) => boolean): Template {
  const tokens = lex(source, name);
  const defined = new Map<string, Node[]>();
  let next = 0;
  let variables = ["$"];
  let rangeDepth = 0;

  const fail = (token: Token, message: string): never => {
    throw new TemplateSyntaxError(`template: ${name}:${lineOf(source, token.at)}: ${message}`);
  };
  const peek = (): Token => tokens[next]!;
  const take = (): Token => tokens[next++]!;
  const skipSpace = (): Token => {
    while (peek().kind === "space") next++;
    return peek();
  };
  const shown = (token: Token) =>
    token.kind === "eof"
      ? "EOF"
      : token.kind === "right"
        ? '"}}"'
        : token.kind === "word" || token.kind === "field"
          ? `<${token.text}>`
          : JSON.stringify(token.text);
  const unexpected = (token: Token, where: string): never => fail(token, `unexpected ${shown(token)} in ${where}`);

  /** Nodes up to {{end}} or {{else}}, or at the top to the end of the source. */
  function list(top: boolean): { nodes: Node[]; end: "end" | "else" | "eof"; at: Token } {
    const nodes: Node[] = [];
    for (;;) {
      const token = take();
      if (token.kind === "eof") {
        if (!top) fail(token, "unexpected EOF");
        return { nodes, end: "eof", at: token };
      }
      if (token.kind === "text") {
        nodes.push({ kind: "text", text: token.text });
        continue;
      }
      const first = skipSpace();
      if (first.kind === "word" && CLAUSES.has(first.text)) {
        take();
        if (first.text === "end" || first.text === "else") {
          if (top) fail(first, `unexpected {{${first.text}}}`);
          if (first.text === "end") expectRight("end");
          return { nodes, end: first.text, at: first };
        }
        const node = clause(first);
        if (node) nodes.push(node);
      } else {
        const pipe = pipeline("command", "right");
        nodes.push({ kind: "action", at: first.at, pipe });
      }
    }
  }

  function expectRight(where: string): void {
    const token = skipSpace();
    if (token.kind !== "right") unexpected(token, where);
    take();
  }

  function clause(word: Token): Node | undefined {
    switch (word.text) {
      case "if":
      case "with":
      case "range":
        return control(word.text, word);
      case "break":
      case "continue":
        if (rangeDepth === 0) fail(word, `{{${word.text}}} outside {{range}}`);
        expectRight(`{{${word.text}}}`);
        return { kind: word.text, at: word.at };
      case "define": {
        const called = definitionName(word, "define clause");
        expectRight("define clause");
        defined.set(
          called,
          scoped(() => body("define")),
        );
        return undefined;
      }
      case "block": {
        const called = definitionName(word, "block clause");
        const pipe = pipeline("block clause", "right");
        defined.set(
          called,
          scoped(() => body("block")),
        );
        return { kind: "template", at: word.at, name: called, pipe };
      }
      default: {
        const called = definitionName(word, "template clause");
        if (skipSpace().kind === "right") {
          take();
          return { kind: "template", at: word.at, name: called, pipe: undefined };
        }
        return { kind: "template", at: word.at, name: called, pipe: pipeline("template clause", "right") };
      }
    }
  }

  function definitionName(_word: Token, where: string): string {
    const token = skipSpace();
    if (token.kind !== "string") unexpected(token, where);
    take();
    return unquote(token) as string;
  }

  function scoped<T>(fn: () => T): T {
    const outer = variables;
    variables = ["$"];
    const result = fn();
    variables = outer;
    return result;
  }

  function body(where: string): Node[] {
    const { nodes, end, at } = list(false);
    if (end === "else") fail(at, `unexpected {{else}} in ${where} clause`);
    return nodes;
  }

  function control(kind: "if" | "with" | "range", word: Token): Node {
    const depth = variables.length;
    const pipe = pipeline(kind, "right");
    if (kind === "range") rangeDepth++;
    const { nodes, end } = list(false);
    if (kind === "range") rangeDepth--;
    let otherwise: Node[] | undefined;
    if (end === "else") {
      const token = skipSpace();
      if (token.kind === "word" && token.text === kind && kind !== "range") {
        take();
        otherwise = [control(kind, token)];
      } else {
        expectRight("else");
        const rest = list(false);
        if (rest.end === "else") fail(rest.at, "expected end; found {{else}}");
        otherwise = rest.nodes;
      }
    }
    variables.length = depth;
    return { kind, at: word.at, pipe, body: nodes, otherwise };
  }

  function pipeline(where: string, close: "right" | ")"): Pipe {
    const first = skipSpace();
    const pipe: Pipe = { at: first.at, declares: [], assigns: false, commands: [] };
    declarations(pipe, where);
    for (;;) {
      const token = skipSpace();
      if (token.kind === close) {
        take();
        if (pipe.commands.length === 0) fail(token, `missing value for ${where}`);
        for (const command of pipe.commands.slice(1)) {
          const kind = command.args[0]!.kind;
          if (kind === "literal" || kind === "dot" || kind === "nil") {
            fail({ ...token, at: command.at }, `non executable command in pipeline stage ${pipe.commands.indexOf(command) + 1}`);
          }
        }
        return pipe;
      }
      pipe.commands.push(command(where, close));
    }
  }

  function declarations(pipe: Pipe, where: string): void {
    const start = next;
    const names: string[] = [];
    for (;;) {
      const token = skipSpace();
      if (token.kind !== "variable") break;
      take();
      names.push(token.text);
      const after = skipSpace();
      if (after.kind === ":=" || after.kind === "=") {
        take();
        pipe.declares = names;
        pipe.assigns = after.kind === "=";
        if (after.kind === ":=") variables.push(...names);
        return;
      }
      if (after.kind === "," && where === "range" && names.length < 2) {
        take();
        continue;
      }
      break;
    }
    next = start;
  }

  function command(where: string, close: "right" | ")"): Command {
    const args: Expression[] = [];
    const start = skipSpace().at;
    for (;;) {
      const token = skipSpace();
      if (token.kind === "right" || token.kind === ")") {
        if (token.kind !== close) unexpected(token, where);
        break;
      }
      if (token.kind === "|") {
        take();
        if (args.length === 0) fail(token, "missing value for command");
        const after = skipSpace();
        if (after.kind === close) fail(after, `missing value for ${where}`);
        break;
      }
      args.push(operand());
      const after = peek();
      if (after.kind !== "space" && after.kind !== "|" && after.kind !== "right" && after.kind !== ")") unexpected(after, "operand");
    }
    return { at: args[0]?.at ?? start, args };
  }

  function operand(): Expression {
    const base = term();
    const names: string[] = [];
    const at = peek().at;
    while (peek().kind === "field") names.push(take().text.slice(1));
    if (names.length === 0) return base;
    if (base.kind === "field") return { ...base, at, names: [...base.names, ...names] };
    if (base.kind === "variable") return { ...base, at, names: [...base.names, ...names] };
    if (base.kind === "literal" || base.kind === "nil" || base.kind === "dot")
      fail({ kind: "field", text: "", at }, `unexpected . after term ${JSON.stringify(show(base))}`);
    return { kind: "chain", at, base, names };
  }

  function term(): Expression {
    const token = take();
    switch (token.kind) {
      case "word":
        if (token.text === "true" || token.text === "false")
          return { kind: "literal", at: token.at, value: token.text === "true", text: token.text };
        if (token.text === "nil") return { kind: "nil", at: token.at };
        if (!functions(token.text)) fail(token, `function "${token.text}" not defined`);
        return { kind: "function", at: token.at, name: token.text };
      case ".":
        return { kind: "dot", at: token.at };
      case "variable":
        if (!variables.includes(token.text)) fail(token, `undefined variable "${token.text}"`);
        return { kind: "variable", at: token.at, name: token.text, names: [] };
      case "field":
        return { kind: "field", at: token.at, names: [token.text.slice(1)] };
      case "string":
      case "char":
        return { kind: "literal", at: token.at, value: unquote(token), text: token.text };
      case "number":
        return { kind: "literal", at: token.at, value: numberOf(token.text), text: token.text };
      case "(":
        return { kind: "pipe", at: token.at, pipe: pipeline("parenthesized pipeline", ")") };
      default:
        return unexpected(token, "operand");
    }
  }

  function unquote(token: Token): string | number {
    if (token.text.startsWith("`")) return token.text.slice(1, -1);
    const text = token.text.slice(1, -1).replace(/\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)/g, (_, code: string) => {
      const simple: Record<string, string> = {
        n: "\n",
        t: "\t",
        r: "\r",
        a: "\x07",
        b: "\b",
        f: "\f",
        v: "\v",
        "\\": "\\",
        '"': '"',
        "'": "'",
      };
      if (code in simple) return simple[code]!;
      if (/^[xuU]/.test(code)) return String.fromCodePoint(Number.parseInt(code.slice(1), 16));
      if (/^[0-7]{3}$/.test(code)) return String.fromCodePoint(Number.parseInt(code, 8));
      return fail(token, "invalid syntax");
    });
    return token.kind === "char" ? text.codePointAt(0)! : text;
  }

  const { nodes } = list(true);
  return { name, source, root: nodes, defined };
}

function numberOf(text: string): number {
  const plain = text.replaceAll("_", "");
  const sign = plain.startsWith("-") ? -1 : 1;
  const digits = plain.replace(/^[+-]/, "");
  if (/^0\d+$/.test(digits)) return sign * Number.parseInt(digits, 8);
  return sign * Number(digits);
}

/** An expression as it stands in messages. */
export function show(e: Expression): string {
  switch (e.kind) {
    case "dot":
      return ".";
    case "nil":
      return "nil";
    case "literal":
      return e.text;
    case "field":
      return `.${e.names.join(".")}`;
    case "variable":
      return [e.name, ...e.names].join(".");
    case "function":
      return e.name;
    case "chain":
      return `${e.base.kind === "pipe" ? show(e.base) : `(${show(e.base)})`}.${e.names.join(".")}`;
    case "pipe":
      return `(${showPipe(e.pipe)})`;
  }
}

export function showCommand(command: Command): string {
  return command.args.map(show).join(" ");
}

export function showPipe(pipe: Pipe): string {
  const declares = pipe.declares.length > 0 ? `${pipe.declares.join(", ")} ${pipe.assigns ? "=" : ":="} ` : "";
  return declares + pipe.commands.map(showCommand).join(" | ");
}
