import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { type Packet, PacketSchema, PacketType, StatSchema } from "../../gen/fsutil/types_pb.ts";
import { receiveDirectory } from "./receive.ts";

const { PACKET_STAT, PACKET_REQ, PACKET_DATA, PACKET_FIN } = PacketType;
const stat = (path: string, mode: number, linkname = "") =>
  create(PacketSchema, { type: PACKET_STAT, stat: create(StatSchema, { path, mode, linkname, modTime: 1_000_000_000n }) });
const LINK = 0x0800_01ff;
const DIRECTORY = 0x8000_01ed;

describe("a directory from a builder", () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "jubako-receive-"));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  /** Sends descriptions, and contents as they are asked for. */
  async function receive(root: string, packets: Packet[]): Promise<void> {
    const asked: number[] = [];
    let done = false;
    async function* sent() {
      yield* packets;
      yield create(PacketSchema, { type: PACKET_STAT });
      while (!done) {
        const ID = asked.shift();
        if (ID !== undefined) {
          yield create(PacketSchema, { type: PACKET_DATA, ID, data: Buffer.from(`file ${ID}`) });
          yield create(PacketSchema, { type: PACKET_DATA, ID });
        } else await new Promise((resolve) => setTimeout(resolve, 1));
      }
      yield create(PacketSchema, { type: PACKET_FIN });
    }
    for await (const packet of receiveDirectory(root, sent())) {
      if (packet.type === PACKET_REQ) asked.push(packet.ID);
      if (packet.type === PACKET_FIN) done = true;
    }
  }

  test("files, directories, links", async () => {
    const root = join(dir, "plain");
    await receive(root, [stat("d", DIRECTORY), stat("d/f", 0o640), stat("l", LINK, "d/f")]);
    expect(readFileSync(join(root, "l"), "utf8")).toBe("file 1");
  });

  test.each([["../out"], ["d/../../out"], ["/etc/out"], [""], ["d//f"], ["a\0b"]])("the name %j is refused", async (name) => {
    const root = join(dir, "names");
    await expect(receive(root, [stat(name, 0o644)])).rejects.toThrow("invalid name");
    expect(existsSync(join(dir, "out"))).toBe(false);
  });

  test("nothing is written through a link, be it sent or there before", async () => {
    const outside = join(dir, "outside");
    await receive(outside, []);
    const root = join(dir, "links");
    await expect(receive(root, [stat("l", LINK, outside), stat("l/f", 0o644)])).rejects.toThrow("which is no directory");
    symlinkSync(join(outside, "target"), join(root, "f"));
    await receive(root, [stat("f", 0o644)]);
    expect(readdirSync(outside)).toEqual([]);
  });
});
