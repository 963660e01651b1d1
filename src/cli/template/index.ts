// Go's text/template for --format: parse once, then run over each object.
import { type ExecuteOptions, execute } from "./execute.ts";
import { functions } from "./functions.ts";
import { parse } from "./parse.ts";

export { TemplateError } from "./execute.ts";
export { TemplateSyntaxError } from "./lex.ts";
export { json, print, quote, STRUCT, sprintf } from "./print.ts";

/** TemplateSyntaxError at once where the source is wrong; the function then throws TemplateError. */
export function compile(
  source: string,
  name = "",
  more?: ExecuteOptions["functions"],
): (data: unknown, options?: ExecuteOptions) => string {
  const template = parse(source, name, (fn) => Object.hasOwn(functions, fn) || (more !== undefined && Object.hasOwn(more, fn)));
  return (data, options) => execute(template, data, { functions: more, ...options });
}
