// Lists: one row an object, shown as a table, by the user's template, or as JSON lines. A kind of list is a record of columns; templates see
// them as fields, as docker's formatter contexts name them.

import { align } from "./table.ts";
import { compile, json, STRUCT, TemplateError, TemplateSyntaxError } from "./template/index.ts";

/** A value in a row, or a method of one argument such as `.Label "x"`. */
export type Column<Row> = { header: string; value: (row: Row, argument: string) => unknown; method?: boolean; hidden?: boolean };
export type Columns<Row> = Record<string, Column<Row>>;

export interface ListFormat<Row> {
  /** Type in messages: "*formatter.ContainerContext". */
  type: string;
  columns: Columns<Row>;
  table: string;
  quiet?: string | undefined;
  raw?: string | undefined;
  /** What stands before a template's error, where it is not docker's usual words. */
  complaint?: string;
}

export interface ListOptions {
  /** --format, or the default of config.json; "" for none. */
  format: string;
  quiet?: boolean;
}

/** The template that will be used, and whether headers and columns go with it. */
export function chooseFormat<Row>(list: ListFormat<Row>, options: ListOptions): { template: string; table: boolean } {
  const { format, quiet } = options;
  if (format === "" || format === "table")
    return quiet && list.quiet ? { template: list.quiet, table: false } : { template: list.table, table: true };
  if (format === "raw" && list.raw !== undefined) return { template: list.raw, table: false };
  if (format === "json") return { template: "{{json .}}", table: false };
  if (format.startsWith("table")) return { template: format.slice(5).replace(/^ +| +$/g, ""), table: true };
  return { template: format, table: false };
}

export function formatList<Row>(list: ListFormat<Row>, rows: readonly Row[], options: ListOptions): string {
  const { template, table } = chooseFormat(list, options);
  const shown = template.replaceAll("\\t", "\t").replaceAll("\\n", "\n");
  try {
    const run = compile(shown, "", { json: jsonOf });
    let text = "";
    for (const row of rows) text += `${run(contextOf(list, row))}\n`;
    if (!table) return text;
    const header = compile(shown, "", { json: (value: unknown) => value })(headerOf(list));
    return align(`${header}\n${text}`);
  } catch (error) {
    if (error instanceof TemplateSyntaxError)
      throw new Error(`${list.complaint ?? "failed to parse template"}: ${error.message}`, { cause: error });
    if (error instanceof TemplateError)
      throw new Error(`${list.complaint ?? "failed to execute template"}: ${error.message}`, { cause: error });
    throw error;
  }
}

/** What a row looks like to a template. */
export function contextOf<Row>(list: ListFormat<Row>, row: Row): Record<string, unknown> {
  const context: Record<string, unknown> = {};
  for (const [name, column] of Object.entries(list.columns)) {
    context[name] = column.method ? (argument: unknown) => column.value(row, String(argument)) : () => column.value(row, "");
  }
  Object.defineProperty(context, STRUCT, { value: list.type });
  Object.defineProperty(context, ROW, { value: () => jsonRow(list, row) });
  return context;
}

const ROW = Symbol("row");

function jsonOf(value: unknown): string {
  if (typeof value === "object" && value !== null && ROW in value) return (value as { [ROW]: () => string })[ROW]();
  return json(value);
}

/** All fields by name, in the order of the alphabet, as docker marshals a row. */
function jsonRow<Row>(list: ListFormat<Row>, row: Row): string {
  const fields: Record<string, unknown> = {};
  for (const name of Object.keys(list.columns).sort()) {
    const column = list.columns[name]!;
    if (!column.method && !column.hidden) fields[name] = column.value(row, "");
  }
  return json(fields, true);
}

function headerOf<Row>(list: ListFormat<Row>): Record<string, unknown> {
  const context: Record<string, unknown> = {};
  for (const [name, column] of Object.entries(list.columns)) {
    context[name] = column.method ? (argument: unknown) => labelHeader(String(argument)) : column.header;
  }
  return Object.defineProperty(context, STRUCT, { value: list.type });
}

/** "com.example.build-date" → "build date". */
function labelHeader(label: string): string {
  return label
    .slice(label.lastIndexOf(".") + 1)
    .replaceAll("-", " ")
    .replaceAll("_", " ");
}
