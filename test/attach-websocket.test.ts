// GET /containers/{id}/attach/ws with a WebSocket client that is not ours.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { lacks, startEngine, type TestEngine, until } from "./support/engine.ts";
import { freePort } from "./support/registry.ts";

describe.skipIf(lacks("docker"))("attach by a websocket", () => {
  let engine: TestEngine;
  let base: string;
  beforeAll(async () => {
    const port = await freePort();
    engine = await startEngine({ flags: ["-H", `tcp://127.0.0.1:${port}`, "--tls=false"] });
    base = `127.0.0.1:${port}`;
  });
  afterAll(() => engine?.stop());

  function open(path: string) {
    const socket = new WebSocket(`ws://${base}${path}`);
    socket.binaryType = "arraybuffer";
    const got = { text: "", binary: 0, closed: undefined as number | undefined };
    socket.onmessage = ({ data }) => {
      if (typeof data !== "string") got.binary++;
      got.text += typeof data === "string" ? data : Buffer.from(data as ArrayBuffer).toString();
    };
    socket.onclose = ({ code }) => {
      got.closed = code;
    };
    const opened = new Promise<void>((resolve, reject) => {
      socket.onopen = () => resolve();
      socket.onerror = () => reject(new Error("the websocket was refused"));
    });
    return { socket, got, opened };
  }

  test("what is typed reaches the container, its output comes unframed, and its end closes the socket", async () => {
    engine.docker("create", "-i", "--name", "cat", "busybox", "sh", "-c", "cat; echo end >&2");
    const all = "stream=1&stdin=1&stdout=1&stderr=1";
    const { socket, got, opened } = open(`/v1.45/containers/cat/attach/ws?${all}`);
    await opened;
    engine.docker("start", "cat");
    socket.send("one\n");
    socket.send(Buffer.from("two\n"));
    await until("the echo", () => got.text === "one\ntwo\n");
    expect(got.binary).toBeGreaterThan(0);
    engine.docker("kill", "cat");
    await until("the end", () => got.closed === 1000);
    const again = open("/v1.45/containers/cat/attach/ws?logs=1&stdout=1");
    await until("the log and the end", () => again.got.closed === 1000);
    expect(again.got.text).toBe("one\ntwo\n");
    engine.docker("rm", "cat");
  });

  test("a terminal: detach keys; before API 1.28 in text frames, before 1.42 with all streams", async () => {
    engine.docker("run", "-dit", "--name", "tty", "busybox", "sh");
    const { socket, got, opened } = open("/v1.27/containers/tty/attach/ws?stream=1");
    await opened;
    socket.send("echo typed-$((20+3))\n");
    await until("the output", () => got.text.includes("typed-23"));
    expect(got.binary).toBe(0);
    socket.send("\x10\x11");
    await until("the detachment", () => got.closed !== undefined);
    expect(engine.docker("inspect", "-f", "{{.State.Running}}", "tty").stdout).toBe("true\n");
    engine.docker("rm", "-f", "tty");
  });

  test("without a websocket: a body that comes with the request is no input", async () => {
    engine.docker("create", "-i", "--name", "bodied", "busybox", "cat");
    const body = '{"stream":true}';
    const head = `POST /v1.45/containers/bodied/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n`;
    const [host, port] = base.split(":");
    let got = "";
    const socket = connect(Number(port), host!, () =>
      socket.write(`${head}Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}typed early\n`),
    );
    socket.on("data", (piece) => {
      got += piece.toString("latin1");
    });
    await until("the answer", () => got.includes("\r\n\r\n"));
    engine.docker("start", "bodied");
    await until("the echo", () => got.includes("typed early"));
    socket.destroy();
    expect(got.slice(got.indexOf("\r\n\r\n") + 4).slice(8)).toBe("typed early\n");
    engine.docker("rm", "-f", "bodied");
  });

  test("what is no handshake, and what is not there", async () => {
    engine.docker("create", "--name", "plain", "busybox");
    const plain = await fetch(`http://${base}/v1.45/containers/plain/attach/ws?stream=1`);
    expect([plain.status, await plain.json()]).toEqual([400, { message: "not a websocket handshake of version 13" }]);
    expect((await fetch(`http://${base}/v1.45/containers/none/attach/ws`)).status).toBe(404);
    engine.docker("rm", "plain");
  });
});
