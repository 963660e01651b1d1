// File operations: actions that build upon inputs and upon each other. Those in one line, each upon what the one before left, change one snapshot together.
import { openDetached } from "../../containerd/index.ts";
import type { FileAction, FileOp } from "../../gen/pb_pb.ts";
import { close } from "../../linux/index.ts";
import type { BuilderHost } from "../host.ts";
import { performActions } from "./files.ts";
import { EMPTY, grown, type Tree, type Workspace } from "./workspace.ts";

/** Which action gives each output. */
export function outputActions(op: FileOp): Map<number, number> {
  const found = new Map<number, number>();
  for (const [i, { output }] of op.actions.entries()) if (output >= 0n) found.set(Number(output), i);
  return found;
}

/** The input that an action's tree grew from; -1 is the empty tree. */
export function baseInput(op: FileOp, count: number, action: number): number {
  let input = Number(op.actions[action]!.input);
  while (input >= count) input = Number(op.actions[input - count]!.input);
  return input;
}

/** What actions make, by their indexes; each once. */
export function performer(host: BuilderHost, workspace: Workspace, op: FileOp, inputs: readonly Tree[], text: string) {
  const count = inputs.length;
  const made = new Map<number, Promise<Tree>>();
  const uses = new Map<number, number>();
  for (const { input, secondaryInput } of op.actions)
    for (const each of [Number(input), Number(secondaryInput)])
      if (each >= count) uses.set(each - count, (uses.get(each - count) ?? 0) + 1);

  /** An input of an action: a tree that is there, or what another action makes. */
  const treeAt = (index: number): Promise<Tree> => {
    if (index < 0) return Promise.resolve(EMPTY);
    return index < count ? Promise.resolve(inputs[index]!) : resultOf(index - count);
  };

  function resultOf(action: number): Promise<Tree> {
    let result = made.get(action);
    if (!result) {
      result = make(action);
      made.set(action, result);
    }
    return result;
  }

  async function make(last: number): Promise<Tree> {
    const chain: FileAction[] = [];
    let at = last;
    for (;;) {
      const action = op.actions[at]!;
      chain.unshift(action);
      const before = Number(action.input) - count;
      // What others need too, or is an output itself, is a tree of its own.
      if (before < 0 || (uses.get(before) ?? 0) > 1 || op.actions[before]!.output >= 0n) break;
      at = before;
    }
    const base = await treeAt(Number(chain[0]!.input));
    const copies = chain.filter(({ action }) => action.case === "copy");
    const sources: Tree[] = [];
    for (const { secondaryInput } of copies) sources.push(await treeAt(Number(secondaryInput)));
    const distinct = [...new Set(sources)];
    const change = await workspace.changing(base, text, (mounts) =>
      workspace.readingAll(distinct, async (open) => {
        const mount = openDetached(mounts);
        try {
          await performActions(host, mount, chain, (action) => open[distinct.indexOf(sources[copies.indexOf(action)]!)]!);
        } finally {
          close(mount);
        }
      }),
    );
    return grown(base.directory === undefined ? base : EMPTY, change);
  }
  return resultOf;
}
