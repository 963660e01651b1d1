import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ServerCall } from "../../lib/grpc/server.ts";
import { sendDirectory } from "./files.ts";
import { PACKET, Packet } from "./messages.ts";

const dir = mkdtempSync(join(tmpdir(), "jubako-send-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test("a pattern that looks below a file sends what it finds below directories", async () => {
  mkdirSync(join(dir, "d/sub/deep"), { recursive: true });
  for (const path of ["d/a", "d/sub/b", "d/sub/deep/c"]) writeFileSync(join(dir, path), "");
  const told: string[] = [];
  const call: ServerCall = {
    header: () => undefined,
    list: () => [],
    signal: new AbortController().signal,
    async *batches() {},
    message: async () => new Uint8Array(),
    async room() {},
    send(bytes) {
      const packet = Packet.decode(bytes);
      if (packet.type === PACKET.ERR) throw new Error(Buffer.from(packet.data).toString());
      if (packet.stat) told.push(packet.stat.path);
    },
  };
  await sendDirectory(dir, { includePatterns: [], excludePatterns: [], followPaths: ["d/sub/*/c"] }, call);
  expect(told).toEqual(["d", "d/sub", "d/sub/deep", "d/sub/deep/c"]);
});
