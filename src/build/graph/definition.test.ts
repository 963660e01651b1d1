// LLB from the wire against damage of every kind: it is loaded or refused, never more.
import { expect, test } from "bun:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { DefinitionSchema } from "../../gen/pb_pb.ts";
import { Failure } from "../../lib/errors.ts";
import { execOp, fileOp, mergeOp, sourceOp } from "../harness-operations.ts";
import { definitionToGraph } from "./definition.ts";
import { createGraph, edge, graphToDefinition } from "./llb.ts";

function example() {
  const graph = createGraph();
  const base = edge(graph.add(sourceOp("docker-image://base", { b: "2", a: "1" })));
  const copied = edge(graph.add(fileOp(base, [{ copy: { src: "/a", dest: "/b" }, from: edge(graph.add(sourceOp("local://context"))) }])));
  const meta = { args: ["true"], env: [], cwd: "/" };
  const { digest } = edge(
    graph.add(
      execOp({ meta }, [
        { dest: "/", source: copied, output: 0 },
        { dest: "/m", source: base, output: 1 },
      ]),
    ),
  );
  const top = graph.add(mergeOp([edge(digest), edge(digest, 1), copied]), { description: { "llb.customname": "merged" } });
  return { graph, top: edge(top) };
}

test("a graph goes out and comes back as it was", () => {
  const { graph, top } = example();
  const definition = graphToDefinition(graph, top);
  const sent = fromBinary(DefinitionSchema, toBinary(DefinitionSchema, definition));
  const other = createGraph();
  expect(definitionToGraph(sent, other)).toEqual(top);
  expect([...other.vertices.keys()].sort()).toEqual([...graph.vertices.keys()].sort());
  expect(other.metadata.get(top.digest)?.description).toEqual({ "llb.customname": "merged" });
  // inputs come before what uses them
  expect(graphToDefinition(other, top).def).toEqual(definition.def);
  expect(graphToDefinition(graph, undefined).def).toEqual([]);
  // what only a part of the graph needs goes alone
  expect(graphToDefinition(graph, graph.vertices.get(top.digest)!.inputs[2]!).def).toHaveLength(4);
});

test("whatever comes in is loaded or refused, never more", () => {
  const { graph, top } = example();
  const { def } = graphToDefinition(graph, top);
  let state = 12345;
  const random = (below: number) => {
    state = (state * 1103515245 + 12345) & 0x7fffffff;
    return state % below;
  };
  let refused = 0;
  for (let round = 0; round < 3000; round++) {
    const damaged = def.map((bytes) => Buffer.from(bytes));
    for (let n = random(3) + 1; n > 0; n--) {
      const at = random(damaged.length);
      const bytes = damaged[at]!;
      switch (random(6)) {
        case 0:
          bytes[random(bytes.length)] = random(256);
          break;
        case 1:
          damaged.splice(at, 1);
          break;
        case 2:
          damaged.splice(at, 0, damaged[random(damaged.length)]!);
          break;
        case 3:
          damaged[at] = bytes.subarray(0, random(bytes.length));
          break;
        case 4:
          damaged[at] = Buffer.concat([bytes, Buffer.from([random(256), random(256)])]);
          break;
        default:
          damaged.reverse();
      }
      if (damaged.length === 0) break;
    }
    const into = createGraph();
    try {
      definitionToGraph(create(DefinitionSchema, { def: damaged }), into);
      for (const vertex of into.vertices.values()) for (const { digest } of vertex.inputs) expect(into.vertices.has(digest)).toBe(true);
    } catch (error) {
      expect(error).toBeInstanceOf(Failure);
      expect(into.vertices.size).toBe(0);
      refused++;
    }
  }
  expect(refused).toBeGreaterThan(1000);
});
