// The `filters` parameter of list endpoints and of /events: {"label":["a=b"],"type":["container"]} or, from old clients, {"label":{"a=b":true}}.
import { invalidArgument } from "../../lib/errors.ts";

export type Filters = Map<string, string[]>;

/** Reads `filters`; InvalidArgument where it is no such JSON, or a name is not in `known`. */
export function parseFilters(text: string | null, known: readonly string[]): Filters {
  const filters: Filters = new Map();
  if (!text) return filters;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw invalidArgument("invalid filter");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw invalidArgument("invalid filter");
  for (const [name, given] of Object.entries(value)) {
    if (!known.includes(name)) throw invalidArgument(`invalid filter '${name}'`);
    const values = Array.isArray(given) ? given : Object.keys((given ?? {}) as object);
    filters.set(name, values.map(String));
  }
  return filters;
}

/** Whether the labels have every `key` or `key=value` of `wanted`. */
export function matchLabels(wanted: string[] | undefined, labels: Record<string, string> | undefined): boolean {
  return (wanted ?? []).every((label) => {
    const cut = label.indexOf("=");
    return cut < 0 ? labels?.[label] !== undefined : labels?.[label.slice(0, cut)] === label.slice(cut + 1);
  });
}

/** A boolean filter's value: undefined where absent; InvalidArgument where it is neither. */
export function booleanFilter(filters: Filters, name: string): boolean | undefined {
  const values = filters.get(name);
  if (!values || values.length === 0) return undefined;
  const of = (text: string) => {
    if (["1", "true"].includes(text)) return true;
    if (["0", "false"].includes(text)) return false;
    throw invalidArgument(`invalid filter '${name}=[${text}]'`);
  };
  const answers = new Set(values.map(of));
  if (answers.size > 1) throw invalidArgument(`invalid filter '${name}=[${values.join(" ")}]'`);
  return answers.values().next().value;
}
