// An operation of LLB as JSON the way Go's encoder writes BuildKit's structures: clients read provenance into these. It differs from protobuf's own JSON in numbers
// of 64 bits, enumerations and the places of alternatives.
import { toJson } from "@bufbuild/protobuf";
import { type Op, OpSchema } from "../../gen/pb_pb.ts";

type Json = Record<string, unknown>;

const WIDE = new Set(["input", "secondaryInput", "output", "timestamp", "size", "Soft", "Hard", "index"]);

/** Numbers as numbers, everywhere below; names of files and values of maps stay text, whatever they look like. */
function numbered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(numbered);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, each]) => [name, WIDE.has(name) && typeof each === "string" ? Number(each) : numbered(each)]),
  );
}

const user = (opt: unknown): unknown => {
  if (typeof opt !== "object" || opt === null) return opt;
  const { byName, byID } = opt as Json;
  return { User: byName === undefined ? (byID ? { byId: byID } : {}) : { byName } };
};

function action({ input = 0, secondaryInput = 0, output = 0, ...kind }: Json): Json {
  const Action = Object.fromEntries(
    Object.entries(kind).map(([name, what]) => {
      const { owner, ...rest } = what as Json;
      if (owner === undefined) return [name, rest];
      const said = Object.entries(owner as Json).map(([whom, opt]) => [whom, user(opt)]);
      return [name, { ...rest, owner: Object.fromEntries(said) }];
    }),
  );
  return { input, secondaryInput, output, Action };
}

/** Without its inputs, which are told by other names. */
export function opJson(op: Op): Json {
  const json = toJson(OpSchema, op, { enumAsInteger: true, useProtoFieldName: true }) as Json;
  const attrs = op.op.case === "source" ? op.op.value.attrs : undefined;
  const { inputs: _, platform, constraints, ...kind } = numbered(json) as Json;
  const file = kind.file as { actions?: Json[] } | undefined;
  if (file) kind.file = { actions: (file.actions ?? []).map(action) };
  // attributes are text, also one that is called "size"
  if (attrs && Object.keys(attrs).length > 0) kind.source = { ...(kind.source as Json), attrs };
  return { Op: kind, ...(platform ? { platform } : {}), ...(constraints ? { constraints } : {}) };
}
