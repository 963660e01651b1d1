// Subrequests: what can be asked of a Dockerfile without building it (docker build --call=check, outline, targets). Answers are JSON, and text for people.
import { unimplemented } from "../../lib/errors.ts";
import { excerpt, type LintWarning, type Range } from "../dockerfile/index.ts";
import type { Dockerfile } from "../dockerfile/types.ts";
import type { Result } from "../session.ts";
import type { Conversion } from "./convert.ts";
import { descriptionOf } from "./stages.ts";

export const REQUESTS = ["frontend.subrequests.describe", "frontend.outline", "frontend.targets", "frontend.lint"];

interface Source {
  filename: string;
  text: string;
}

const location = ({ start, end }: Range) => ({ ranges: [{ start: { line: start }, end: { line: end } }] });

function answer(json: unknown, text: string, extra: Record<string, string> = {}): Result {
  const metadata = new Map<string, Uint8Array>();
  const set = (name: string, value: string) => metadata.set(name, Buffer.from(value));
  set("result.json", JSON.stringify(json, null, 2));
  set("result.txt", text);
  set("version", "1.0.0");
  for (const [name, value] of Object.entries(extra)) set(name, value);
  return { ref: undefined, refs: new Map(), metadata, attestations: new Map() };
}

function table(rows: string[][]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return `${rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]! + 3))
        .join("")
        .trimEnd(),
    )
    .join("\n")}\n`;
}

export function describe(): Result {
  const request = (name: string, description: string) => ({
    Name: name,
    Version: "1.0.0",
    Type: "rpc",
    Description: description,
    Opts: null,
    Inputs: null,
    Metadata: [{ Name: "result.json" }, { Name: "result.txt" }],
    Refs: null,
  });
  const all = [
    request("frontend.outline", "List all parameters current build target supports"),
    request("frontend.targets", "List all targets current build supports"),
    request("frontend.lint", "Lint a Dockerfile"),
    request("frontend.subrequests.describe", "List available subrequest types"),
  ];
  return answer(
    all,
    table([["NAME", "VERSION", "DESCRIPTION"], ...all.map(({ Name, Version, Description }) => [Name, Version, Description])]),
  );
}

export function targets(file: Dockerfile, source: Source): Result {
  const list = file.stages.map(({ from, name }, i) => {
    const description = name === undefined ? "" : descriptionOf(from.comments, name);
    return {
      ...(name === undefined ? {} : { name: from.written?.name ?? name }),
      ...(i === file.stages.length - 1 ? { default: true } : {}),
      ...(description ? { description } : {}),
      base: from.image,
      ...(from.platform === undefined ? {} : { platform: from.platform }),
      location: location(from.range),
    };
  });
  const rows = list.map((each) => [
    `${each.name ?? (each.default ? "(default)" : "")}${each.name && each.default ? " (default)" : ""}`,
    each.description ?? "",
  ]);
  return answer(
    { targets: list, sources: [Buffer.from(source.text).toString("base64")] },
    table([["TARGET", "DESCRIPTION"], ...rows.filter(([name]) => name !== "")]),
  );
}

export function outline(conversion: Conversion, source: Source): Result {
  const { args, wants, targetStage } = conversion;
  const name = targetStage.name;
  const description = name === undefined ? "" : descriptionOf(targetStage.from.comments, name);
  const shown = args.map((arg) => ({
    name: arg.name,
    ...(arg.description ? { description: arg.description } : {}),
    ...(arg.value ? { value: arg.value } : {}),
    location: location(arg.range),
  }));
  const needs = (list: typeof wants.secrets) =>
    [...new Map(list.map((each) => [each.name, each])).values()].map((each) => ({
      name: each.name,
      ...(each.required ? { required: true } : {}),
      location: location(each.range),
    }));
  const secrets = needs(wants.secrets);
  const ssh = needs(wants.ssh);
  const cache = wants.caches.map(({ id, range }) => ({ ID: id, location: location(range) }));
  const json = {
    ...(name === undefined ? {} : { name }),
    ...(description ? { description } : {}),
    ...(shown.length ? { args: shown } : {}),
    ...(secrets.length ? { secrets } : {}),
    ...(ssh.length ? { ssh } : {}),
    ...(cache.length ? { cache } : {}),
    sources: [Buffer.from(source.text).toString("base64")],
  };
  const parts: string[] = [];
  if (name !== undefined || description)
    parts.push(table([["TARGET:", name ?? ""], ...(description ? [["DESCRIPTION:", description]] : [])]));
  if (shown.length)
    parts.push(table([["BUILD ARG", "VALUE", "DESCRIPTION"], ...shown.map((arg) => [arg.name, arg.value ?? "", arg.description ?? ""])]));
  if (secrets.length) parts.push(table([["SECRET", "REQUIRED"], ...secrets.map((each) => [each.name, each.required ? "true" : ""])]));
  if (ssh.length) parts.push(table([["SSH", "REQUIRED"], ...ssh.map((each) => [each.name, each.required ? "true" : ""])]));
  return answer(json, parts.join("\n"));
}

export interface LintFailure {
  message: string;
  range: Range | undefined;
}

export function lint(
  warnings: readonly LintWarning[],
  source: Source,
  failure: LintFailure | undefined,
  violated: string | undefined,
): Result {
  const json = {
    warnings: warnings.map(({ rule, message, description, url, range }) => ({
      ruleName: rule,
      description,
      url,
      detail: message,
      location: location(range),
    })),
    sources: [{ filename: source.filename, language: "Dockerfile", data: Buffer.from(source.text).toString("base64") }],
    ...(failure ? { buildError: { message: failure.message, ...(failure.range ? { location: location(failure.range) } : {}) } } : {}),
  };
  const told = warnings.map(
    ({ rule, message, url, range }) =>
      `\nWARNING: ${rule}${url ? ` - ${url}` : ""}\n${message}\n${excerpt(source.text, source.filename, range)}\n`,
  );
  const failed = failure
    ? `\nERROR: ${failure.message}\n${failure.range ? `${excerpt(source.text, source.filename, failure.range)}\n` : ""}`
    : "";
  return answer(json, told.join("") + failed, failure || violated ? { "result.statuscode": "1" } : {});
}

export function unknownRequest(name: string): never {
  throw unimplemented(`the frontend's request ${name}`);
}
