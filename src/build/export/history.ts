// The history of an image fits its layers: an instruction that changed nothing has no layer, and one that nobody told of has an entry.

import type { HistoryEntry } from "../../oci/index.ts";
import type { Edge, Graph } from "../graph/llb.ts";
import type { Solved } from "../solve/vertex.ts";

/** How many layers each operation on the way to an edge added, the first one first; of an image, one for each layer. */
export function contributions(
  graph: Graph,
  solved: ReadonlyMap<string, Solved>,
  result: Edge | undefined,
): { count: number; name: string }[] {
  const found: { count: number; name: string }[] = [];
  const pending: (Edge | undefined)[] = [result];
  // From the top down: what comes last is looked at first.
  while (pending.length > 0) {
    const edge = pending.pop();
    if (!edge) continue;
    const vertex = graph.vertices.get(edge.digest);
    const made = solved.get(edge.digest);
    if (!vertex || !made) continue;
    const { op } = vertex.op;
    const name = graph.metadata.get(edge.digest)?.description["llb.customname"] ?? "";
    const input = (index: bigint | undefined) => (index === undefined || index < 0n ? undefined : vertex.inputs[Number(index)]);
    switch (op.case) {
      case "source":
        for (const _ of made.outputs.get(edge.index)?.layers ?? []) found.push({ count: 1, name });
        break;
      case "exec": {
        found.push({ count: made.added.length, name });
        pending.push(input(op.value.mounts.find(({ output }) => Number(output) === edge.index)?.input));
        break;
      }
      case "file": {
        found.push({ count: made.added.length, name });
        const count = vertex.inputs.length;
        let at = op.value.actions.findIndex(({ output }) => Number(output) === edge.index);
        while (at >= 0 && Number(op.value.actions[at]!.input) >= count) at = Number(op.value.actions[at]!.input) - count;
        pending.push(input(op.value.actions[at]?.input));
        break;
      }
      case "merge":
        for (const each of op.value.inputs) pending.push(input(each.input));
        break;
      default:
        for (const _ of made.outputs.get(edge.index)?.layers ?? []) found.push({ count: 1, name });
    }
  }
  return found.reverse();
}

/** The history with as many layers as there are. Times that are missing are `created`. */
export function fitHistory(
  history: readonly HistoryEntry[],
  layers: number,
  parts: readonly { count: number; name: string }[],
  created: string,
): HistoryEntry[] {
  const claimed = history.filter((entry) => !entry.empty_layer).length;
  let fitted: HistoryEntry[] = history.map((entry) => ({ ...entry }));
  if (claimed > layers && parts.length === claimed && parts.every(({ count }) => count <= 1)) {
    let at = 0;
    fitted = fitted.map((entry) => (entry.empty_layer || parts[at++]!.count > 0 ? entry : { ...entry, empty_layer: true }));
  }
  let left = layers;
  for (const entry of fitted) {
    if (entry.empty_layer) continue;
    // what no layer is left for has none
    if (left > 0) left--;
    else entry.empty_layer = true;
  }
  const untold = parts.flatMap(({ count, name }) => Array.from({ length: count }, () => name)).slice(-left);
  for (let i = 0; i < left; i++) fitted.push({ created_by: untold[i] ?? "", comment: "buildkit.exporter.image.v0" });
  return fitted.map((entry) => ({ created, ...entry }));
}
