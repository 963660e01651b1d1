// A file operation as a vertex: what its key is made of, and its outputs.
import type { FileAction, FileActionCopy, FileOp } from "../../gen/pb_pb.ts";
import type { Vertex } from "../graph/llb.ts";
import type { KeyPart } from "../progress.ts";
import type { Outputs } from "./cache.ts";
import { baseInput, outputActions, performer } from "./file-op.ts";
import { copyDigest, pathDigest } from "./files.ts";
import { actionPart } from "./keys.ts";
import { contentName, isUnknown, type Solved, type VertexTools } from "./vertex.ts";
import { EMPTY, type OpenTree, type Tree } from "./workspace.ts";

/** Does a file operation's actions, or finds what they made before. */
export async function fileVertex(parts: VertexTools, vertex: Vertex, op: FileOp): Promise<Solved> {
  const { options, workspace, inputsOf, cachedOr, nameOf } = parts;
  const { host, signal } = options;
  const inputs = await inputsOf(vertex);
  signal.throwIfAborted();
  const count = inputs.length;
  const outputs = outputActions(op);
  const treeAt = (index: number) => (index < 0 ? EMPTY : inputs[index]);
  const copies = op.actions.filter((action): action is FileAction & { action: { case: "copy" } } => action.action.case === "copy");
  const bases = new Set(op.actions.map(({ input }) => Number(input)).filter((input) => input < count));
  const base = async (): Promise<KeyPart[]> => {
    const found = op.actions.map(actionPart);
    for (const input of bases) {
      const tree = treeAt(input)!;
      const value = isUnknown(tree) ? await workspace.reading(tree, (open) => pathDigest("/", open, true)) : contentName(tree);
      found.push({ name: input <= 0 ? "files before" : `files before (${input})`, value });
    }
    return found;
  };
  const sources = copies.map(({ secondaryInput }) => Number(secondaryInput)).filter((input) => input < count);
  const byChain = async (): Promise<KeyPart[]> => [
    ...(await base()),
    ...sources.map((input, i) => ({ name: `source ${i}`, value: contentName(treeAt(input)!) })),
  ];
  const byContent = async (): Promise<KeyPart[]> => {
    const found = await base();
    const trees = [...new Set(sources.map((input) => treeAt(input)!))];
    await workspace.readingAll(trees, async (open: OpenTree[]) => {
      for (const { secondaryInput, action } of copies) {
        const tree = treeAt(Number(secondaryInput));
        if (!tree) continue;
        const copy = action.value as FileActionCopy;
        const { digest, files } = await copyDigest(copy, open[trees.indexOf(tree)]!);
        // One file's digest says what it is; of several, each says which one is another.
        for (const [path, each] of files.size > 1 ? files : []) found.push({ name: `file ${path}`, value: each.slice(0, 16) });
        found.push({ name: `files of ${copy.src}`, value: digest });
      }
    });
    return found;
  };
  const known = sources.every((input) => !isUnknown(treeAt(input)!));
  const keys = copies.length === 0 ? [base] : known ? [byChain, byContent] : [byContent];
  const parentOf = (output: number): Tree => {
    const tree = treeAt(baseInput(op, count, outputs.get(output)!))!;
    return tree.directory === undefined ? tree : EMPTY;
  };
  return cachedOr(vertex, "regular", keys, [...outputs.keys()], parentOf, async () => {
    const resultOf = performer(host, workspace, op, inputs, nameOf(vertex));
    const made: Outputs = new Map();
    for (const [index, action] of outputs) {
      const tree = await resultOf(action);
      made.set(index, { chainId: tree.chainId, layers: tree.layers.slice(parentOf(index).layers.length) });
    }
    return made;
  });
}
