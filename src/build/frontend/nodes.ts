// LLB in the making: operations that refer to each other as values. Digests come last, when all is known (which files of the context are wanted, for one), and
// then a definition is what BuildKit's clients send: every operation's bytes, inputs before what uses them.

import type { MessageInitShape } from "@bufbuild/protobuf";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Definition, DefinitionSchema, OpSchema, type Source } from "../../gen/pb_pb.ts";
import { invalidArgument } from "../../lib/errors.ts";
import { digestOf, type Platform } from "../../oci/index.ts";
import type { Range } from "../dockerfile/index.ts";

type OpInit = MessageInitShape<typeof OpSchema>;

export interface Node {
  op: NonNullable<OpInit["op"]>;
  inputs: Output[];
  platform: Platform | undefined;
  meta: Meta;
  /** What a client sent for it: it keeps these bytes, and so its digest. */
  bytes?: Uint8Array;
}

export interface Meta {
  /** What watchers see; "[internal] …" for what no one wrote. */
  name: string;
  /** The instruction. */
  command?: string;
  /** Lines of the Dockerfile. */
  range?: Range;
  ignoreCache?: boolean;
  group?: { id: string; name: string; weak: boolean };
}

/** What an operation gives; undefined is the empty tree. */
export interface Output {
  node: Node;
  index: number;
}

export interface Marshalled {
  digest: string;
  bytes: Uint8Array;
}

export function platformMessage(platform: Platform) {
  return {
    OS: platform.os,
    Architecture: platform.architecture,
    Variant: platform.variant ?? "",
    OSVersion: platform["os.version"] ?? "",
    OSFeatures: platform["os.features"] ?? [],
  };
}

/** Node and all that it needs, inputs first. No recursion: thousands of instructions stand upon each other. */
function inOrder(root: Node): Node[] {
  const order: Node[] = [];
  const seen = new Set<Node>();
  const stack: { node: Node; next: number }[] = [{ node: root, next: 0 }];
  seen.add(root);
  for (let top = stack.at(-1); top; top = stack.at(-1)) {
    const input = top.node.inputs[top.next++];
    if (!input) {
      order.push(top.node);
      stack.pop();
    } else if (!seen.has(input.node)) {
      seen.add(input.node);
      stack.push({ node: input.node, next: 0 });
    }
  }
  return order;
}

export interface Marshaller {
  digest(output: Output): string;
  definition(output: Output | undefined): Definition;
}

export function createMarshaller(source: { filename: string; data: Uint8Array }): Marshaller {
  const done = new Map<Node, Marshalled>();

  function marshal(root: Node): Node[] {
    const order = inOrder(root);
    for (const node of order) {
      if (done.has(node)) continue;
      const inputs = node.inputs.map(({ node: input, index }) => ({ digest: done.get(input)!.digest, index: BigInt(index) }));
      const platform = node.platform && platformMessage(node.platform);
      const bytes =
        node.bytes ?? toBinary(OpSchema, create(OpSchema, { inputs, op: node.op, ...(platform ? { platform } : {}), constraints: {} }));
      done.set(node, { bytes, digest: digestOf(bytes) });
    }
    return order;
  }

  function metadataOf({ meta }: Node) {
    return {
      description: { "llb.customname": meta.name, ...(meta.command ? { "com.docker.dockerfile.v1.command": meta.command } : {}) },
      ignoreCache: meta.ignoreCache ?? false,
      ...(meta.group ? { progressGroup: meta.group } : {}),
    };
  }

  return {
    digest(output) {
      if (!done.has(output.node)) marshal(output.node);
      return done.get(output.node)!.digest;
    },
    definition(output) {
      if (!output) return create(DefinitionSchema);
      const order = marshal(output.node);
      const def: Uint8Array[] = [];
      const metadata: MessageInitShape<typeof DefinitionSchema>["metadata"] = {};
      const locations: NonNullable<MessageInitShape<typeof DefinitionSchema>["Source"] & { locations?: unknown }>["locations"] = {};
      const seen = new Set<string>();
      for (const node of order) {
        const { digest, bytes } = done.get(node)!;
        if (seen.has(digest)) continue;
        seen.add(digest);
        def.push(bytes);
        metadata[digest] = metadataOf(node);
        if (node.meta.range) locations[digest] = { locations: [{ sourceIndex: 0, ranges: [rangeMessage(node.meta.range)] }] };
      }
      const { digest } = done.get(output.node)!;
      def.push(toBinary(OpSchema, create(OpSchema, { inputs: [{ digest, index: BigInt(output.index) }] })));
      return create(DefinitionSchema, {
        def,
        metadata,
        Source: { locations, infos: [{ ...source, language: "Dockerfile" }] } as MessageInitShape<typeof DefinitionSchema>["Source"] &
          Source,
      });
    },
  };
}

export const rangeMessage = ({ start, end }: Range) => ({ start: { line: start, character: 0 }, end: { line: end, character: 0 } });

/** A definition of the client as operations of ours. */
export function importDefinition(definition: Definition): Output | undefined {
  const nodes = new Map<string, Node>();
  let last: Output | undefined;
  for (const bytes of definition.def) {
    const op = fromBinary(OpSchema, bytes);
    const inputs = op.inputs.map(({ digest, index }) => {
      const node = nodes.get(digest);
      if (!node) throw invalidArgument(`invalid definition: input ${digest} is missing`);
      return { node, index: Number(index) };
    });
    if (op.op.case === undefined) {
      last = inputs[0];
      continue;
    }
    const digest = digestOf(bytes);
    const { platform } = op;
    const meta = definition.metadata[digest];
    nodes.set(digest, {
      op: op.op,
      inputs,
      platform: platform
        ? { os: platform.OS, architecture: platform.Architecture, ...(platform.Variant ? { variant: platform.Variant } : {}) }
        : undefined,
      meta: { name: meta?.description["llb.customname"] ?? "", ignoreCache: meta?.ignoreCache ?? false },
      bytes,
    });
  }
  return last;
}
