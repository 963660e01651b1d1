// The build graph: BuildKit's LLB itself. A vertex is one operation (pb.Op), named by the digest of its bytes; its inputs are outputs of other vertices. The bytes
// are kept, so that what a client sent keeps its digests and can be handed on. Names, lines and other words for people are metadata beside the vertices and
// change no digest.
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type Definition, DefinitionSchema, type Op, type OpMetadata, OpMetadataSchema, OpSchema, type Source } from "../../gen/pb_pb.ts";
import { digestOf } from "../../oci/index.ts";

/** An output of a vertex: what a step gives to others. Where an edge may be undefined, that is the empty tree ("scratch"). */
export interface Edge {
  digest: string;
  index: number;
}

export interface Vertex {
  digest: string;
  inputs: Edge[];
  op: Op;
  bytes: Uint8Array;
}

export interface Graph {
  readonly vertices: ReadonlyMap<string, Vertex>;
  readonly metadata: ReadonlyMap<string, OpMetadata>;
  /** Adds a vertex (or finds the same one) and answers its digest. Inputs must be here already, so that there are no cycles. */
  add(op: MessageInitShape<typeof OpSchema>, metadata?: MessageInitShape<typeof OpMetadataSchema>): string;
  /** As add(), for a vertex whose bytes came from outside and are verified. */
  take(vertex: Vertex, metadata: OpMetadata | undefined): void;
}

export const edge = (digest: string, index = 0): Edge => ({ digest, index });
export const edgeName = ({ digest, index }: Edge): string => (index === 0 ? digest : `${digest}#${index}`);

export function createGraph(): Graph {
  const vertices = new Map<string, Vertex>();
  const metadata = new Map<string, OpMetadata>();
  return {
    vertices,
    metadata,
    add(init, about) {
      const op = create(OpSchema, init);
      const bytes = toBinary(OpSchema, op);
      const digest = digestOf(bytes);
      const inputs = op.inputs.map((input) => ({ digest: input.digest, index: Number(input.index) }));
      if (!vertices.has(digest)) vertices.set(digest, { digest, inputs, op, bytes });
      if (about && !metadata.has(digest)) metadata.set(digest, create(OpMetadataSchema, about));
      return digest;
    },
    take(vertex, about) {
      if (!vertices.has(vertex.digest)) vertices.set(vertex.digest, vertex);
      // a later build may say more of a vertex that was here before
      if (about) metadata.set(vertex.digest, about);
    },
  };
}

/** What must be done for an edge, inputs first, and at the end the operation without bytes that names the edge, as LLB has it. */
export function graphToDefinition(graph: Graph, result: Edge | undefined, source?: Source): Definition {
  const definition = create(DefinitionSchema);
  if (!result) return definition;
  const seen = new Set<string>();
  const pending: { digest: string; next: number }[] = [{ digest: result.digest, next: 0 }];
  seen.add(result.digest);
  // A stack of one's own: graphs may be thousands of vertices deep.
  for (let top = pending.at(-1); top; top = pending.at(-1)) {
    const vertex = graph.vertices.get(top.digest)!;
    const input = vertex.inputs[top.next++];
    if (input) {
      if (!seen.has(input.digest)) pending.push({ digest: input.digest, next: 0 });
      seen.add(input.digest);
      continue;
    }
    pending.pop();
    definition.def.push(vertex.bytes);
    const about = graph.metadata.get(vertex.digest);
    if (about) definition.metadata[vertex.digest] = about;
  }
  definition.def.push(toBinary(OpSchema, create(OpSchema, { inputs: [{ digest: result.digest, index: BigInt(result.index) }] })));
  if (source) definition.Source = source;
  return definition;
}
