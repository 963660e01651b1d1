// Our D-Bus against Debian's dbus-daemon on a socket of its own, with systemd's busctl as the other peer; and against what no honest peer sends.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AF_UNIX, binding, check, close, SYS, unixAddress } from "../../linux/index.ts";
import { type Bus, connectBus, refusalOf, socketsOf } from "./connection.ts";
import { connectStream } from "./stream.ts";
import { decodeMessage, encodeBody, encodeMessage, type Message, messageLength, type Value } from "./wire.ts";

const missing = ["dbus-daemon", "busctl"].filter((program) => spawnSync("sh", ["-c", `command -v ${program}`]).status !== 0);
if (missing.length) console.log(`skip: ${missing.join(", ")} not installed`);

const service = { destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };

describe.skipIf(missing.length > 0)("with dbus-daemon", () => {
  const dir = mkdtempSync(join(tmpdir(), "jubako-dbus-"));
  const address = `unix:path=${dir}/bus`;
  let daemon: ChildProcess;
  let bus: Bus;

  beforeAll(async () => {
    daemon = spawn("dbus-daemon", ["--session", "--nofork", "--nopidfile", `--address=${address}`], { stdio: "ignore" });
    const connected = async (): Promise<Bus> => {
      for (let i = 0; i < 500; i++) {
        const made = await connectBus(address).catch(() => Bun.sleep(10));
        if (made) return made;
      }
      return connectBus(address);
    };
    bus = await connected();
  });
  afterAll(() => {
    bus?.close();
    daemon?.kill("SIGKILL");
    rmSync(dir, { recursive: true, force: true });
  });

  test("calls are answered, each by its own answer", async () => {
    const [id, names, pid] = await Promise.all([
      bus.call({ ...service, member: "GetId" }),
      bus.call({ ...service, member: "ListNames" }),
      bus.call({ ...service, member: "GetConnectionUnixProcessID", signature: "s", args: ["org.freedesktop.DBus"] }),
    ]);
    expect(id[0]).toMatch(/^[0-9a-f]{32}$/);
    expect(names[0]).toContain("org.freedesktop.DBus");
    expect(pid[0]).toBe(daemon.pid!);
  });

  test("a refusal keeps its name", async () => {
    const refused = bus.call({ ...service, member: "NoSuchThing" });
    expect(await refused.catch(refusalOf)).toBe("org.freedesktop.DBus.Error.UnknownMethod");
  });

  test("a signal of busctl's with every kind of value", async () => {
    await bus.call({ ...service, member: "AddMatch", signature: "s", args: ["type='signal',interface='org.jubako.Test'"] });
    const heard = new Promise<Message>((resolve) => void bus.onSignal("org.jubako.Test", "Said", resolve));
    const words =
      "ynqiuxtdsogbasa{sv}(sa(us))v 7 -2 3 -4 5 -6 18446744073709551615 1.5 text /a/b a{sv} true 2 one two 2 k u 9 l as 1 m in 1 3 w s inside".split(
        " ",
      );
    const sent = spawnSync("busctl", [`--address=${address}`, "--", "emit", "/o", "org.jubako.Test", "Said", ...words], {
      encoding: "utf8",
    });
    expect(sent.stderr).toBe("");
    const { body } = await heard;
    const map: Value = [
      ["k", { signature: "u", value: 9 }],
      ["l", { signature: "as", value: ["m"] }],
    ];
    const structure: Value = ["in", [[3, "w"]]];
    const said = [7, -2, 3, -4, 5, -6n, 18446744073709551615n, 1.5, "text", "/a/b", "a{sv}", true, ["one", "two"], map, structure];
    expect(body).toEqual([...said, { signature: "s", value: "inside" }]);
  });

  test("busctl reads what we write", async () => {
    const monitor = spawn("busctl", [`--address=${address}`, "--json=short", "monitor", "--match", "member='Listen'"], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    let text = "";
    monitor.stdout.on("data", (chunk: Buffer) => {
      text += chunk;
    });
    try {
      const args: Value[] = [[["a", { signature: "(ub)", value: [1, true] }]], [1n, 2n], [["x", []]], 3];
      for (let i = 0; i < 200 && !text.includes("Listen"); i++) {
        await bus.call({ ...service, member: "Listen", signature: "a{sv}ata(sau)y", args }).catch(() => {});
        await Bun.sleep(20);
      }
      const line = text.split("\n").find((each) => each.includes('"Listen"'));
      expect(JSON.parse(line!).payload).toEqual({
        type: "a{sv}ata(sau)y",
        data: [{ a: { type: "(ub)", data: [1, true] } }, [1, 2], [["x", []]], 3],
      });
    } finally {
      monitor.kill("SIGKILL");
    }
  });

  test("an end of the bus ends what waits", async () => {
    const other = await connectBus(address);
    const call = other.call({ ...service, member: "GetId" });
    other.close();
    expect(await call.catch((error: Error) => error.message)).toContain("closed");
  });
});

test("addresses", () => {
  expect(socketsOf("tcp:host=x;unix:path=/run/a%20b,guid=1;unix:abstract=c")).toEqual(["/run/a b", "\0c"]);
  expect(socketsOf("nonsense")).toEqual([]);
});

const honest: Message = {
  type: 2,
  flags: 1,
  serial: 3,
  replySerial: 2,
  sender: ":1.2",
  signature: "a{sv}s",
  body: [[["key", { signature: "(ias)", value: [1, ["x", "y"]] }]], "end"],
};

test("a message goes there and back", () => {
  const bytes = encodeMessage(honest);
  expect(messageLength(bytes)).toBe(bytes.length);
  expect(decodeMessage(bytes)).toEqual(honest);
  // Longer than the room that there is at first, whatever comes last.
  for (let length = 200; length < 280; length++) {
    const long: Message = {
      ...honest,
      signature: "sytsua(sv)",
      body: ["x".repeat(length), 1, 2n, "y", 3, [["k", { signature: "b", value: true }]]],
    };
    expect(decodeMessage(encodeMessage(long))).toEqual(long);
  }
});

test("every byte of a message may be another: it is understood or refused, never anything else", () => {
  const bytes = encodeMessage(honest);
  let refused = 0;
  for (let at = 0; at < bytes.length; at++) {
    for (const value of [0, 1, 0x7f, 0x80, 0xff, bytes[at]! ^ 1, bytes[at]! ^ 0x20]) {
      const changed = bytes.slice();
      changed[at] = value;
      try {
        decodeMessage(changed);
      } catch (error) {
        expect((error as Error).message).toStartWith("D-Bus: ");
        refused++;
      }
    }
  }
  for (let length = 16; length < bytes.length; length++) expect(() => decodeMessage(bytes.subarray(0, length))).toThrow("D-Bus");
  expect(refused).toBeGreaterThan(300);
});

test("depth, lengths and signatures have bounds", () => {
  let value: Value = 1;
  let signature = "y";
  for (let i = 0; i < 80; i++) {
    value = { signature, value };
    signature = "v";
  }
  const deep = encodeMessage({ ...honest, signature: "v", body: [value] });
  expect(() => decodeMessage(deep)).toThrow("too deeply");
  expect(() => encodeBody("(", [1])).toThrow("not valid");
  expect(() => encodeBody("a{vs}", [[]])).toThrow("key type");
  expect(() => encodeBody("()", [[]])).toThrow("no members");
  expect(() => encodeBody("s", ["a\0b"])).toThrow("NUL");
  expect(() => encodeBody("y".repeat(256), [])).toThrow("255");
  const long = encodeMessage(honest);
  new DataView(long.buffer, long.byteOffset).setUint32(4, 0x7fffffff, true);
  expect(() => messageLength(long)).toThrow("too long");
});

/** Listens, and does what it is told to with what comes. */
async function withPeer(serve: (socket: Socket) => void, use: (address: string) => Promise<void>): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), "jubako-dbus-"));
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(`${dir}/bus`, resolve));
  try {
    await use(`unix:path=${dir}/bus`);
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Without the greeting, the calls of a peer that begins at once. */
function callsOf(socket: Socket, take: (message: Message) => void): void {
  let received = Buffer.alloc(0);
  socket.on("data", (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    const begin = received.indexOf("BEGIN\r\n");
    if (received[0] === 0 && begin > 0) received = received.subarray(begin + 7);
    for (;;) {
      const length = received[0] === 0 ? undefined : messageLength(received);
      if (length === undefined || length > received.length) return;
      take(decodeMessage(received.subarray(0, length)));
      received = received.subarray(length);
    }
  });
  socket.write("OK 1234\r\n");
}

const call = { path: "/", interface: "a.b", member: "C" };
const descriptors = () => readdirSync("/proc/self/fd").length;
/** Once the peer, which is in this process, has closed its end. */
const noneLeft = async (before: number) => {
  for (let turn = 0; turn < 200 && descriptors() > before; turn++) await Bun.sleep(5);
  expect(descriptors()).toBeLessThanOrEqual(before);
};

test("what comes in pieces is put together, what is too long for the socket is sent bit by bit", async () => {
  const text = "x".repeat(3 << 20);
  const answer = async (socket: Socket, { serial, body }: Message) => {
    const values = [text, String(body[0]).length];
    const bytes = encodeMessage({ type: 2, flags: 1, serial: 1, replySerial: serial, signature: "su", body: values });
    let at = 0;
    for (const size of [1, 2, 3, 10, 17, bytes.length]) {
      socket.write(bytes.subarray(at, at + size));
      at += size;
      await Bun.sleep(2);
    }
  };
  await withPeer(
    (socket) => {
      let turn = Promise.resolve();
      callsOf(socket, (message) => {
        turn = turn.then(() => answer(socket, message));
      });
    },
    async (address) => {
      const before = descriptors();
      const bus = await connectBus(address, { direct: true });
      // Three at a time, which wait for one another.
      const answers = await Promise.all([1, 2, 3].map((n) => bus.call({ ...call, signature: "s", args: [text.slice(n)] })));
      expect(answers.map(([said, length]) => [said === text, length])).toEqual([1, 2, 3].map((n) => [true, text.length - n]));
      bus.close();
      await noneLeft(before);
    },
  );
});

test("a peer that stalls, ends or talks nonsense ends what waits, and leaves nothing open", async () => {
  const half = encodeMessage({ type: 4, flags: 1, serial: 1, ...call, signature: "", body: [] }).subarray(0, 40);
  const ways: [how: (socket: Socket) => void, words: string][] = [
    [() => {}, "no answer to C in 100 ms"],
    [(socket) => socket.end(), "the connection ended"],
    [(socket) => socket.write(new Uint8Array(64)), "neither byte order"],
    [(socket) => socket.end(half), "the connection ended"],
  ];
  for (const [how, words] of ways) {
    await withPeer(
      (socket) => callsOf(socket, () => how(socket)),
      async (address) => {
        const before = descriptors();
        const bus = await connectBus(address, { direct: true });
        expect(await bus.call({ ...call, timeout: 100 }).catch((error: Error) => error.message)).toContain(words);
        bus.close();
        expect(await bus.call(call).catch((error: Error) => error.message)).toContain("D-Bus");
        await noneLeft(before);
      },
    );
  }
});

test("where nobody takes new connections, nobody is waited for without end", async () => {
  const dir = mkdtempSync(join(tmpdir(), "jubako-dbus-"));
  const address = unixAddress(`${dir}/bus`);
  const socket = () => check(binding.syscall(SYS.socket, AF_UNIX, 1 | 0o2004000, 0), "socket");
  const listening = socket();
  const others = [socket(), socket()];
  try {
    check(binding.syscall(SYS.bind, listening, address, address.length), "bind");
    check(binding.syscall(SYS.listen, listening, 0), "listen");
    for (const other of others) binding.syscall(SYS.connect, other, address, address.length);
    expect(await connectStream(`${dir}/bus`, 100).catch((error: Error) => error.message)).toStartWith("connect: EAGAIN");
    // As soon as there is room, it is taken.
    const waiting = connectStream(`${dir}/bus`, 5000);
    close(check(binding.syscall(SYS.accept4, listening, null, null, 0), "accept"));
    (await waiting).close();
  } finally {
    for (const fd of [listening, ...others]) close(fd);
    rmSync(dir, { recursive: true, force: true });
  }
});

test("a peer that asks without end and never reads is let go of", async () => {
  const question = encodeMessage({ type: 1, flags: 0, serial: 1, sender: `:${"1".repeat(4000)}`, ...call, signature: "", body: [] });
  await withPeer(
    (socket) => {
      socket.write("OK 1234\r\n");
      socket.pause();
      const ask = () => {
        while (!socket.destroyed && socket.write(question));
        socket.once("drain", ask);
      };
      ask();
    },
    async (address) => {
      const bus = await connectBus(address, { direct: true });
      expect(await bus.call({ ...call, timeout: 60_000 }).catch((error: Error) => error.message)).toMatch(
        /D-Bus: (it does not read|the connection)/,
      );
      bus.close();
    },
  );
}, 30_000);

test("a peer that is no bus is left alone", async () => {
  const dir = mkdtempSync(join(tmpdir(), "jubako-dbus-"));
  const answers = ["HTTP/1.1 200 OK\r\n\r\n", "OK 1234\r\ngarbage that is no message at all", "REJECTED EXTERNAL\r\n", "x".repeat(4096)];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.end(answers.shift() ?? "");
  });
  await new Promise<void>((resolve) => server.listen(`${dir}/bus`, resolve));
  try {
    while (answers.length) {
      const outcome = await connectBus(`unix:path=${dir}/bus`).catch((error: Error) => error.message);
      expect(outcome).toContain("D-Bus");
    }
  } finally {
    server.close();
    rmSync(dir, { recursive: true, force: true });
  }
});
