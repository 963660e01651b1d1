// Builds within builds (LLB's BuildOp): a step makes a definition, and what that says is built in the step's place.
import { fromBinary } from "@bufbuild/protobuf";
import { type BuildOp, type Definition, DefinitionSchema } from "../../gen/pb_pb.ts";
import { invalidArgument, messageOf, resourceExhausted, unimplemented } from "../../lib/errors.ts";
import type { Edge } from "../graph/llb.ts";
import { readFile } from "./view.ts";
import type { Tree, Workspace } from "./workspace.ts";

const LLB_BUILDER = -1n;
const INPUT = "buildkit.llb.definition";
/** One may make the next. */
const MAX_NESTED = 64;

export function createNested(load: ((definition: Definition) => Edge | undefined) | undefined, workspace: Workspace) {
  let count = 0;
  /** What the definition that is in an input is about. */
  return async ({ builder, inputs, attrs }: BuildOp, trees: readonly Tree[]): Promise<Edge | undefined> => {
    if (!load) throw unimplemented("builds within builds by this door");
    if (builder !== LLB_BUILDER) throw invalidArgument("only LLB builder is currently allowed");
    if (++count > MAX_NESTED) throw resourceExhausted(`a build has more than ${MAX_NESTED} builds within it`);
    const input = inputs[INPUT];
    if (!input) throw invalidArgument(`no llb definition input ${INPUT} found`);
    const tree = trees[Number(input.input)];
    if (!tree) throw invalidArgument(`invalid index ${input.input}`);
    const bytes = await workspace.reading(tree, async ({ root }) => readFile(root, attrs["llbbuild.filename"] || INPUT));
    try {
      return load(fromBinary(DefinitionSchema, bytes));
    } catch (error) {
      throw invalidArgument(`the definition of a build within the build: ${messageOf(error)}`, error);
    }
  };
}
