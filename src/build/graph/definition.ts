// LLB from a client becomes part of a graph. All of it is hostile: counted, measured, each digest made anew, each input looked up among what is there, before
// anything is done. A cycle can't be written, since a vertex is named by the digest of its bytes, which hold the names of its inputs.
import { fromBinary } from "@bufbuild/protobuf";
import { type Definition, type Op, OpSchema } from "../../gen/pb_pb.ts";
import { invalidArgument, messageOf, resourceExhausted, unimplemented } from "../../lib/errors.ts";
import { digestOf } from "../../oci/index.ts";
import type { Edge, Graph, Vertex } from "./llb.ts";

const MAX_VERTICES = 50_000;
const MAX_OP_BYTES = 16 << 20;
const MAX_BYTES = 128 << 20;
const MAX_INPUTS = 4096;
const MAX_PARTS = 8192;

/** How many outputs an operation has, at most. */
export function outputsOf(op: Op): number {
  if (op.op.case === "exec") return 1 + Math.max(-1, ...op.op.value.mounts.map(({ output }) => Number(output)));
  if (op.op.case === "file") return 1 + Math.max(-1, ...op.op.value.actions.map(({ output }) => Number(output)));
  if (op.op.case === "passthrough") return op.op.value.outputs.length;
  return 1;
}

const within = (index: bigint, count: number) => index >= -1n && index < BigInt(count);

/** Whether all indexes within an operation lead somewhere. */
function checkOp(op: Op, digest: string): void {
  const bad = (what: string) => invalidArgument(`invalid ${what} in LLB operation ${digest}`);
  const count = op.inputs.length;
  if (count > MAX_INPUTS) throw resourceExhausted(`LLB operation ${digest} has ${count} inputs, more than ${MAX_INPUTS}`);
  switch (op.op.case) {
    case "exec": {
      const { mounts, meta } = op.op.value;
      if (!meta || meta.args.length === 0) throw invalidArgument(`invalid exec op ${digest} with no meta or no arguments`);
      if (mounts.length === 0) throw invalidArgument(`invalid exec op ${digest} with no mounts`);
      if (mounts.length > MAX_PARTS) throw resourceExhausted(`exec op ${digest} has ${mounts.length} mounts, more than ${MAX_PARTS}`);
      for (const { input, output, dest } of mounts) {
        if (!within(input, count)) throw bad("mount input index");
        if (!within(output, mounts.length)) throw bad("mount output index");
        if (dest === "" || dest.includes("\0")) throw bad("mount destination");
      }
      const outputs = mounts.map(({ output }) => output).filter((output) => output >= 0n);
      if (new Set(outputs).size !== outputs.length) throw bad("repeated mount output index");
      if (!mounts.some(({ dest }) => dest === "/")) throw invalidArgument(`invalid exec op ${digest} with no rootfs`);
      break;
    }
    case "file": {
      const { actions } = op.op.value;
      if (actions.length === 0) throw invalidArgument(`invalid file op ${digest} with no actions`);
      if (actions.length > MAX_PARTS) throw resourceExhausted(`file op ${digest} has ${actions.length} actions, more than ${MAX_PARTS}`);
      const outputs = new Set<bigint>();
      for (const [i, { input, secondaryInput, output, action }] of actions.entries()) {
        if (action.case === undefined) throw unimplemented(`an action of file op ${digest} is of a kind that is not known here`);
        if (!within(input, count + i)) throw bad("file action input index");
        if (action.case === "copy" && !within(secondaryInput, count + i)) throw bad("file action secondary input index");
        if (!within(output, actions.length) || (output >= 0n && outputs.has(output))) throw bad("file action output index");
        outputs.add(output);
      }
      break;
    }
    case "merge":
      if (op.op.value.inputs.length > MAX_PARTS || op.op.value.inputs.some(({ input }) => !within(input, count)))
        throw bad("merge input index");
      break;
    case "diff":
      if (!within(op.op.value.lower?.input ?? -1n, count) || !within(op.op.value.upper?.input ?? -1n, count)) throw bad("diff input index");
      break;
    case "source":
      if (op.op.value.identifier === "" || op.op.value.identifier.length > 65536) throw bad("source identifier");
      break;
    case "passthrough":
      if (op.op.value.outputs.length > MAX_PARTS || op.op.value.outputs.some((index) => !within(index, count)))
        throw bad("passthrough input index");
      break;
    case "build":
      break;
    default:
      throw unimplemented(`LLB operation ${digest} is of a kind that is not known here`);
  }
}

/** Adds what a definition says to `graph`; answers the edge it is about, undefined where it says nothing. InvalidArgument, ResourceExhausted, Unimplemented. */
export function definitionToGraph(definition: Definition, graph: Graph): Edge | undefined {
  const { def } = definition;
  if (def.length === 0) return undefined;
  if (def.length > MAX_VERTICES) throw resourceExhausted(`the LLB definition has ${def.length} operations, more than ${MAX_VERTICES}`);
  let total = 0;
  for (const bytes of def) {
    total += bytes.length;
    if (bytes.length > MAX_OP_BYTES) throw resourceExhausted(`an LLB operation has ${bytes.length} bytes, more than ${MAX_OP_BYTES}`);
  }
  if (total > MAX_BYTES) throw resourceExhausted(`the LLB definition has ${total} bytes, more than ${MAX_BYTES}`);
  const found = new Map<string, Vertex>();
  let last: Vertex | undefined;
  for (const bytes of def) {
    let op: Op;
    try {
      op = fromBinary(OpSchema, bytes);
    } catch (error) {
      throw invalidArgument(`failed to parse LLB operation: ${messageOf(error)}`, error);
    }
    const inputs = op.inputs.map(({ digest, index }) => ({ digest, index: index > 100_000n || index < 0n ? -1 : Number(index) }));
    last = { digest: digestOf(bytes), inputs, op, bytes };
    found.set(last.digest, last);
  }
  // The last one says which output of which vertex is meant.
  if (!last || last.op.op.case !== undefined || last.inputs.length !== 1)
    throw invalidArgument("invalid LLB definition: the last operation must have one input and nothing else");
  found.delete(last.digest);
  for (const vertex of [...found.values(), last]) {
    if (vertex !== last) checkOp(vertex.op, vertex.digest);
    for (const { digest, index } of vertex.inputs) {
      const input = found.get(digest) ?? graph.vertices.get(digest);
      if (!input) throw invalidArgument(`invalid LLB definition: input ${digest || '""'} of ${vertex.digest} is missing`);
      if (index < 0 || index >= outputsOf(input.op))
        throw invalidArgument(
          `invalid LLB definition: operation ${digest} has no output ${vertex.op.inputs.find((each) => each.digest === digest)?.index}`,
        );
    }
  }
  for (const vertex of found.values()) graph.take(vertex, definition.metadata[vertex.digest]);
  const { digest, index } = last.inputs[0]!;
  return { digest, index };
}
