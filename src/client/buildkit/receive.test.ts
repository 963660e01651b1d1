import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PACKET, Packet } from "./messages.ts";
import { receiveDirectory } from "./receive.ts";

const stat = (path: string, mode: number, linkname = ""): Partial<Packet> => ({
  type: PACKET.STAT,
  stat: { path, mode, linkname, modTime: 1_000_000_000n, uid: 0, gid: 0, size: 0n, devmajor: 0n, devminor: 0n, xattrs: {} },
});
const LINK = 0x0800_01ff;
const DIRECTORY = 0x8000_01ed;

describe("a directory from a builder", () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "jubako-receive-"));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  /** Sends descriptions, and contents as they are asked for. */
  async function receive(root: string, packets: Partial<Packet>[]): Promise<void> {
    const asked: number[] = [];
    let done = false;
    async function* batches(): AsyncGenerator<Uint8Array[]> {
      yield [...packets, { type: PACKET.STAT }].map((packet) => Packet.encode(packet));
      while (!done) {
        const ID = asked.shift();
        if (ID !== undefined)
          yield [Packet.encode({ type: PACKET.DATA, ID, data: Buffer.from(`file ${ID}`) }), Packet.encode({ type: PACKET.DATA, ID })];
        else await new Promise((resolve) => setTimeout(resolve, 1));
      }
      yield [Packet.encode({ type: PACKET.FIN })];
    }
    await receiveDirectory(root, {
      batches,
      send(bytes) {
        const packet = Packet.decode(bytes);
        if (packet.type === PACKET.REQ) asked.push(packet.ID);
        if (packet.type === PACKET.FIN) done = true;
      },
    });
  }

  test("files, directories, links", async () => {
    const root = join(dir, "plain");
    await receive(root, [stat("d", DIRECTORY), stat("d/f", 0o640), stat("h", 0o640, "d/f"), stat("l", LINK, "d/f")]);
    expect(readFileSync(join(root, "h"), "utf8")).toBe("file 1");
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
