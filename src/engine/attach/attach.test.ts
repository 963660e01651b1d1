import { expect, test } from "bun:test";
import { Duplex } from "node:stream";
import { createStreams } from "../io/streams.ts";
import { connectClient, frame } from "./connection.ts";
import { escapeFilter, parseDetachKeys } from "./detach.ts";

test("detach keys are read as docker reads them", () => {
  expect([...parseDetachKeys("ctrl-p,ctrl-q")]).toEqual([16, 17]);
  expect([...parseDetachKeys("a,ctrl-@,ctrl-],ctrl-_")]).toEqual([97, 0, 29, 31]);
  expect(() => parseDetachKeys("ctrl-1")).toThrow("Invalid detach keys (ctrl-1) provided");
  expect(() => parseDetachKeys("ab")).toThrow();
});

test("the sequence is found over chunks; one begun in vain is passed on", () => {
  const filter = escapeFilter(Uint8Array.of(16, 17));
  const feed = (...bytes: number[]) => {
    const { bytes: out, detach } = filter(Uint8Array.from(bytes));
    return [[...out], detach];
  };
  expect(feed(1, 2)).toEqual([[1, 2], false]);
  expect(feed(1, 16)).toEqual([[1], false]);
  expect(feed(3)).toEqual([[16, 3], false]);
  expect(feed(16, 16, 5)).toEqual([[16, 16, 5], false]);
  expect(feed(16)).toEqual([[], false]);
  expect(feed(17, 9)).toEqual([[], true]);
});

/** A connection whose other end is the test; it takes output only where `taking`. */
function connection(taking = true) {
  const out: Buffer[] = [];
  let waiting: (() => void)[] = [];
  const duplex = new Duplex({
    read() {},
    write(chunk, _encoding, callback) {
      out.push(chunk);
      if (taking) callback();
      else waiting.push(callback);
    },
  });
  return {
    duplex,
    output: () => Buffer.concat(out),
    take() {
      taking = true;
      for (const callback of waiting.splice(0)) callback();
      waiting = [];
    },
  };
}

const plain = { framed: true, stdin: false, stdout: true, stderr: true, closesStdin: false, detachKeys: undefined, detached() {} };

test("output reaches all clients, framed, and ends with the process", async () => {
  const streams = createStreams();
  const [one, two] = [connection(), connection()];
  const done = [one, two].map(({ duplex }) => connectClient({ ...plain, duplex, streams }));
  streams.hub.emit("stdout", Buffer.from("out"));
  streams.hub.emit("stderr", Buffer.from("err"));
  streams.hub.end();
  await Promise.all(done);
  const expected = Buffer.concat([frame("stdout", Buffer.from("out")), frame("stderr", Buffer.from("err"))]);
  expect(one.output().equals(expected)).toBe(true);
  expect(two.output().equals(expected)).toBe(true);
  expect([...expected.subarray(0, 8)]).toEqual([1, 0, 0, 0, 0, 0, 0, 3]);
});

test("a client that is behind makes the process wait, until it caught up or left", async () => {
  const streams = createStreams();
  const slow = connection(false);
  connectClient({ ...plain, duplex: slow.duplex, streams });
  let unblocked = 0;
  streams.hub.onUnblock = () => unblocked++;
  for (let i = 0; i < 20; i++) streams.hub.emit("stdout", Buffer.alloc(64 * 1024));
  expect(streams.hub.blocked).toBe(true);
  slow.take();
  await new Promise((resolve) => setTimeout(resolve, 10));
  expect([streams.hub.blocked, unblocked]).toEqual([false, 1]);
  const gone = connection(false);
  connectClient({ ...plain, duplex: gone.duplex, streams });
  for (let i = 0; i < 20; i++) streams.hub.emit("stdout", Buffer.alloc(64 * 1024));
  expect(streams.hub.blocked).toBe(true);
  gone.duplex.destroy();
  await new Promise((resolve) => setTimeout(resolve, 10));
  expect(streams.hub.blocked).toBe(false);
  expect(streams.hub.clients).toBe(1);
});

test("a replay comes before what is live", async () => {
  const streams = createStreams();
  const client = connection();
  const old = (async function* () {
    await new Promise((resolve) => setTimeout(resolve, 5));
    yield Buffer.from("old ");
  })();
  const done = connectClient({ ...plain, framed: false, duplex: client.duplex, streams, replay: old });
  streams.hub.emit("stdout", Buffer.from("new"));
  streams.hub.end();
  await done;
  expect(client.output().toString()).toBe("old new");
});
