import { describe, expect, test } from "bun:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { PacketSchema } from "../../gen/fsutil/types_pb.ts";
import { SolveRequestSchema, StatusResponseSchema } from "../../gen/moby/buildkit/v1_pb.ts";
import { list, message } from "../../lib/protobuf.ts";
import { Packet, SolveRequest, StatusResponse } from "./messages.ts";

describe("messages by tables are the generated ones", () => {
  const stat = {
    path: "a/ä",
    mode: 0x8000_01ed,
    uid: 1,
    gid: 2,
    size: 2n ** 53n + 1n,
    modTime: 1_700_000_000_123_456_789n,
    linkname: "",
    devmajor: 0n,
    devminor: 3n,
    xattrs: { "user.x": new Uint8Array([1, 2]), __proto: new Uint8Array() },
  };
  const update = {
    vertexes: [
      {
        digest: "sha256:1",
        inputs: ["sha256:2", "sha256:3"],
        name: "[1/2] RUN x",
        cached: true,
        started: { seconds: 1_700_000_000n, nanos: 5 },
        error: "",
        progressGroup: { id: "g", name: "n", weak: true },
      },
    ],
    statuses: [{ ID: "i", vertex: "v", name: "n", current: 5n, total: 0n, timestamp: { seconds: 1n, nanos: 2 } }],
    logs: [{ vertex: "v", stream: 2n, msg: new Uint8Array([255, 0]) }],
    warnings: [{ level: 1n, short: new Uint8Array([65]), detail: [new Uint8Array([66])], ranges: [{ start: { line: 4, character: 0 } }] }],
  };

  test("encoded by the table, decoded by the generated code", () => {
    expect(fromBinary(PacketSchema, Packet.encode({ type: 0, stat, ID: 7 }))).toEqual(create(PacketSchema, { type: 0, stat, ID: 7 }));
    const request = {
      Ref: "r",
      FrontendAttrs: { a: "b", c: "" },
      Cache: { Exports: [{ Type: "local", Attrs: { dest: "d" } }], Imports: [] },
      Entitlements: ["network.host"],
      Exporters: [{ Type: "moby", Attrs: { name: "x" } }],
    };
    expect(fromBinary(SolveRequestSchema, SolveRequest.encode(request))).toEqual(create(SolveRequestSchema, request));
  });

  test("encoded by the generated code, decoded by the table", () => {
    const bytes = toBinary(StatusResponseSchema, create(StatusResponseSchema, update));
    const decoded = StatusResponse.decode(bytes);
    expect(create(StatusResponseSchema, decoded)).toEqual(create(StatusResponseSchema, update));
    expect(toBinary(StatusResponseSchema, create(StatusResponseSchema, decoded))).toEqual(bytes);
  });

  test("packed numbers, fields that are not known, malformed bytes", () => {
    const numbers = message({ numbers: list(1, "uint32") });
    expect(numbers.decode(new Uint8Array([0x0a, 3, 1, 0x80, 1, 0x12, 1, 9])).numbers).toEqual([1, 128]);
    expect(() => numbers.decode(new Uint8Array([0x0a, 200]))).toThrow();
    expect(() => Packet.decode(new Uint8Array([0x12, 5, 1]))).toThrow();
  });
});
