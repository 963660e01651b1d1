// What a container's maker asks of systemd, answered as systemd does, without any: a program, as its caller may block.
//
//   bun systemd-manager.ts SOCKET LOG     tells in LOG what it was asked for, a line of JSON for each; a unit whose name has "refused" in it it refuses,
//                                         one with "failed" fails. What it says comes in pieces.
import { appendFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { decodeMessage, encodeMessage, type Message, messageLength, type Value } from "../../src/runtime/dbus/wire.ts";

const [path = "", log = ""] = process.argv.slice(2);
const manager = { path: "/org/freedesktop/systemd1", interface: "org.freedesktop.systemd1.Manager" };
let jobs = 0;

createServer((socket) => {
  let received = Buffer.alloc(0);
  let greeted = false;
  socket.on("error", () => {});
  socket.on("data", (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    for (let end = received.indexOf("\r\n"); !greeted && end >= 0; end = received.indexOf("\r\n")) {
      const line = received.toString("latin1", 0, end);
      received = received.subarray(end + 2);
      greeted = line === "BEGIN";
      if (!greeted) socket.write(line.startsWith("\0AUTH") ? "DATA\r\n" : "OK 0123\r\n");
    }
    for (
      let length = messageLength(received);
      greeted && length !== undefined && length <= received.length;
      length = messageLength(received)
    ) {
      answer(socket, decodeMessage(received.subarray(0, length)));
      received = received.subarray(length);
    }
  });
}).listen(path);

function answer(socket: Socket, { serial, member = "", body }: Message): void {
  appendFileSync(log, `${JSON.stringify([member, ...body], (_, value) => (typeof value === "bigint" ? String(value) : value))}\n`);
  let bytes = Buffer.alloc(0);
  const say = (message: Pick<Message, "type" | "signature" | "body"> & Partial<Message>) => {
    bytes = Buffer.concat([bytes, encodeMessage({ flags: 1, serial: ++jobs, ...message })]);
  };
  const reply = (signature: string, ...values: Value[]) => say({ type: 2, replySerial: serial, signature, body: values });
  const unit = String(body[0]);
  if (member === "Hello") reply("s", ":1.7");
  else if (member === "Get") reply("v", { signature: "s", value: "252.30-1" });
  else if (["AddMatch", "Subscribe", "SetUnitProperties", "ResetFailedUnit"].includes(member)) reply("");
  else if (unit.includes("refused")) {
    const errorName = "org.freedesktop.DBus.Error.AccessDenied";
    say({ type: 3, replySerial: serial, errorName, signature: "s", body: ["not today"] });
  } else {
    const job = `/org/freedesktop/systemd1/job/${jobs}`;
    reply("o", job);
    say({
      type: 4,
      ...manager,
      member: "JobRemoved",
      signature: "uoss",
      body: [jobs, job, unit, unit.includes("failed") ? "failed" : "done"],
    });
  }
  for (let at = 0; at < bytes.length; at += 50) socket.write(bytes.subarray(at, at + 50));
}
