import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Packet, PacketType } from "../../gen/fsutil/types_pb.ts";
import { sendDirectory } from "./files.ts";

const dir = mkdtempSync(join(tmpdir(), "jubako-send-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test("a pattern that looks below a file sends what it finds below directories", async () => {
  mkdirSync(join(dir, "d/sub/deep"), { recursive: true });
  for (const path of ["d/a", "d/sub/b", "d/sub/deep/c"]) writeFileSync(join(dir, path), "");
  const told: string[] = [];
  const none = (async function* (): AsyncGenerator<Packet> {})();
  for await (const packet of sendDirectory(dir, { includePatterns: [], excludePatterns: [], followPaths: ["d/sub/*/c"] }, none)) {
    if (packet.type === PacketType.PACKET_ERR) throw new Error(Buffer.from(packet.data).toString());
    if (packet.stat) told.push(packet.stat.path);
  }
  expect(told).toEqual(["d", "d/sub", "d/sub/deep", "d/sub/deep/c"]);
});
