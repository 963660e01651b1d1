// The client against a server of the test's own that speaks raw bytes, so that every split and every fault can be had.
import { afterEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { isKind } from "../lib/errors.ts";
import { createClient } from "./client.ts";
import { contextId } from "./context.ts";
import { parseHost, resolveTarget } from "./endpoint.ts";
import { demultiplexer } from "./frames.ts";
import { isApiFailure } from "./request.ts";
import { sshArguments } from "./ssh.ts";

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const fn of cleanups.splice(0)) fn();
});

interface Fake {
  path: string;
  heads: string[];
  connections: number;
  server: Server;
}

/** Answers each request's head (and its body so far) with whatever `answer` writes. */
async function fake(answer: (head: string, socket: Socket) => void): Promise<Fake> {
  const dir = mkdtempSync(`${tmpdir()}/jubako-client-`);
  const state: Fake = { path: `${dir}/s.sock`, heads: [], connections: 0, server: undefined as unknown as Server };
  state.server = createServer({ allowHalfOpen: true }, (socket) => {
    state.connections++;
    let text = "";
    let raw = false;
    socket.on("error", () => {});
    socket.on("end", () => socket.end());
    socket.on("data", (chunk) => {
      if (raw) return void socket.write(chunk);
      text += chunk.toString("latin1");
      for (;;) {
        const end = text.indexOf("\r\n\r\n");
        if (end < 0) return;
        const head = text.slice(0, end);
        const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
        if (text.length < end + 4 + length) return;
        const whole = text.slice(0, end + 4 + length);
        text = text.slice(end + 4 + length);
        state.heads.push(whole);
        answer(whole, socket);
        if (/Upgrade: tcp/.test(head)) raw = true;
      }
    });
  });
  await new Promise<void>((resolve) => state.server.listen(state.path, resolve));
  cleanups.push(() => {
    state.server.close();
    rmSync(dir, { recursive: true, force: true });
  });
  return state;
}

function clientOf(path: string) {
  const client = createClient({ target: { endpoint: { kind: "unix", path }, host: `unix://${path}`, context: "default" } });
  cleanups.push(() => client.close());
  return client;
}

const ok = (body: string, extra = "") =>
  `HTTP/1.1 200 OK\r\nApi-Version: 1.50\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${extra}\r\n${body}`;

describe("requests", () => {
  test("one connection serves requests one after the other", async () => {
    const server = await fake((_, socket) => void socket.write(ok("[]")));
    const client = clientOf(server.path);
    await client.containers.list({ all: true });
    await client.containers.list({ filters: { label: ["a=b c"] } });
    expect(server.connections).toBe(1);
    expect(server.heads[0]).toStartWith("GET /v1.50/containers/json?all=1 HTTP/1.1\r\n");
    expect(decodeURIComponent(server.heads[1]!.split(" ")[1]!).replaceAll("+", " ")).toBe(
      '/v1.50/containers/json?filters={"label":{"a=b c":true}}',
    );
  });

  test("a body in chunks, split anywhere", async () => {
    const json = JSON.stringify([{ Id: "ü".repeat(50) }]);
    const bytes = Buffer.from(json);
    const chunked = Buffer.concat([
      Buffer.from("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
      Buffer.from(`${(7).toString(16)};x=y\r\n`),
      bytes.subarray(0, 7),
      Buffer.from(`\r\n${(bytes.length - 7).toString(16)}\r\n`),
      bytes.subarray(7),
      Buffer.from("\r\n0\r\nTrailer: x\r\n\r\n"),
    ]);
    const server = await fake(async (_, socket) => {
      for (let at = 0; at < chunked.length; at += 3) {
        socket.write(chunked.subarray(at, at + 3));
        await new Promise((resolve) => setImmediate(resolve));
      }
    });
    const client = clientOf(server.path);
    expect(await client.containers.list()).toEqual(JSON.parse(json));
    expect(await client.containers.list()).toEqual(JSON.parse(json));
    expect(server.connections).toBe(1);
  });

  test("an older engine is spoken to in its version; its answer is not asked for twice", async () => {
    const server = await fake((head, socket) => {
      if (head.includes("/v1.50/")) {
        const body = JSON.stringify({ message: "client version 1.50 is too new. Maximum supported API version is 1.41" });
        socket.write(
          `HTTP/1.1 400 Bad Request\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        );
      } else socket.write(ok('{"Id":"x","Warnings":[]}'));
    });
    const client = clientOf(server.path);
    const versions: number[] = [];
    await client.containers.create((version) => {
      versions.push(version);
      return { Image: "busybox" };
    });
    await client.containers.list();
    expect(versions).toEqual([50, 41]);
    expect(server.heads.map((head) => head.split(" ")[1])).toEqual([
      "/v1.50/containers/create",
      "/v1.41/containers/create",
      "/v1.41/containers/json",
    ]);
    expect(await client.version()).toBe("1.41");
  });

  test("what an engine refuses", async () => {
    const server = await fake(
      (_, socket) =>
        void socket.write(
          'HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 33\r\n\r\n{"message":"No such container: x"}'.replace(
            "33",
            "34",
          ),
        ),
    );
    const error = await clientOf(server.path)
      .containers.inspect("x")
      .catch((e: unknown) => e);
    expect(isApiFailure(error) && error.status).toBe(404);
    expect(isKind(error, "NotFound")).toBe(true);
    expect((error as Error).message).toBe("No such container: x");
  });

  test("no engine", async () => {
    await expect(clientOf("/nonexistent/jubako.sock").containers.list()).rejects.toThrow(
      "Cannot connect to the Docker daemon at unix:///nonexistent/jubako.sock. Is the docker daemon running?",
    );
  });

  test("an idle connection that the server closed is replaced; a broken answer is an error", async () => {
    let requests = 0;
    const server = await fake((_, socket) => {
      requests++;
      if (requests === 2) return void socket.destroy();
      if (requests === 4) return void socket.end("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
      socket.write(ok("[]"));
    });
    const client = clientOf(server.path);
    await client.containers.list();
    await client.containers.list();
    expect(requests).toBe(3);
    await expect(client.containers.list()).rejects.toThrow("unexpected EOF");
  });

  test("malformed answers", async () => {
    for (const bytes of [
      "garbage\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
      `HTTP/1.1 200 OK\r\n${"x".repeat(1_100_000)}`,
    ]) {
      const server = await fake((_, socket) => void socket.write(bytes));
      await expect(clientOf(server.path).containers.list()).rejects.toThrow();
    }
  });

  test("a stream is left early, and aborted", async () => {
    const server = await fake((_, socket) => {
      socket.write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
      socket.write('8\r\n{"a":1}\n\r\n');
    });
    const client = clientOf(server.path);
    for await (const message of await client.images.pull({ fromImage: "x" })) {
      expect(message as unknown).toEqual({ a: 1 });
      break;
    }
    const abort = new AbortController();
    const messages = await client.images.pull({ fromImage: "x" }, undefined, abort.signal);
    setTimeout(() => abort.abort(), 20);
    await expect(
      (async () => {
        for await (const _ of messages);
      })(),
    ).rejects.toThrow();
  });

  test("an upload in chunks", async () => {
    let body = "";
    const server = createServer((socket) => {
      socket.on("data", (chunk) => {
        body += chunk.toString();
        if (body.includes("HEAD /_ping")) {
          body = "";
          socket.write("HTTP/1.1 200 OK\r\nApi-Version: 1.50\r\n\r\n");
        }
        if (body.endsWith("0\r\n\r\n")) socket.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
      });
    });
    const dir = mkdtempSync(`${tmpdir()}/jubako-client-`);
    await new Promise<void>((resolve) => server.listen(`${dir}/s`, resolve));
    cleanups.push(() => {
      server.close();
      rmSync(dir, { recursive: true });
    });
    async function* parts() {
      yield Buffer.from("hello");
      yield Buffer.from("");
      yield Buffer.from("world!");
    }
    await clientOf(`${dir}/s`).containers.putArchive("c", { path: "/x" }, parts());
    expect(body).toContain("PUT /v1.50/containers/c/archive?path=%2Fx HTTP/1.1");
    expect(body).toEndWith("\r\n\r\n5\r\nhello\r\n6\r\nworld!\r\n0\r\n\r\n");
  });
});

test("an upgraded connection: early bytes, both ways, half-close", async () => {
  const server = await fake(
    (_, socket) =>
      void socket.write(
        "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly ",
      ),
  );
  const stream = await clientOf(server.path).containers.attach("x", { stream: true, stdin: true, stdout: true });
  let text = "";
  const ended = new Promise<void>((resolve) =>
    stream.start(
      (chunk) => (text += chunk.toString()),
      () => resolve(),
    ),
  );
  stream.write("a".repeat(500_000));
  stream.closeWrite();
  await ended;
  expect(text.length).toBe(500_006);
  expect(text).toStartWith("early aaa");
  expect(stream.mediaType).toBe("application/vnd.docker.raw-stream");
});

test("frames, split anywhere", () => {
  const frame = (stream: number, text: string) => {
    const head = Buffer.alloc(8);
    head[0] = stream;
    head.writeUInt32BE(Buffer.byteLength(text), 4);
    return Buffer.concat([head, Buffer.from(text)]);
  };
  const all = Buffer.concat([frame(1, "out"), frame(2, "err"), frame(1, ""), frame(0, "in")]);
  for (const step of [1, 3, 7, 100]) {
    let text = "";
    const feed = demultiplexer((stream, piece) => (text += `${stream}${piece.toString()}`));
    for (let at = 0; at < all.length; at += step) feed(all.subarray(at, at + step));
    expect(text.replaceAll(/(?<=[a-z])[12](?=[a-z])/g, "").replaceAll(/[12]/g, "")).toBe("outerrin");
  }
  expect(() => demultiplexer(() => {})(frame(7, "x"))).toThrow("Unrecognized input header: 7");
  expect(() => demultiplexer(() => {})(frame(3, "it broke"))).toThrow("it broke");
});

describe("which engine", () => {
  test("hosts", () => {
    expect(parseHost("unix:///a/b")).toEqual({ kind: "unix", path: "/a/b" });
    expect(parseHost("tcp://h:1")).toMatchObject({ kind: "tcp", host: "h", port: 1, tls: undefined });
    expect(parseHost("tcp://[::1]")).toMatchObject({ host: "::1", port: 2375 });
    expect(parseHost("tcp://h", () => ({ ca: undefined, cert: undefined, key: undefined, verify: true }))).toMatchObject({ port: 2376 });
    expect(parseHost("fd://5")).toEqual({ kind: "fd", fd: 5 });
    const ssh = parseHost("ssh://me@h:22/run/x.sock");
    expect(ssh).toEqual({ kind: "ssh", user: "me", host: "h", port: 22, path: "/run/x.sock" });
    expect(ssh.kind === "ssh" && sshArguments(ssh).slice(-5)).toEqual(["docker", "--host", "unix:///run/x.sock", "system", "dial-stdio"]);
    for (const bad of ["foo", "npipe:////./x", "ssh://me:pw@h", "ftp://x"]) expect(() => parseHost(bad)).toThrow();
  });

  test("environment and contexts", async () => {
    const configDir = mkdtempSync(`${tmpdir()}/jubako-client-`);
    cleanups.push(() => rmSync(configDir, { recursive: true }));
    const meta = `${configDir}/contexts/meta/${contextId("far")}`;
    mkdirSync(meta, { recursive: true });
    writeFileSync(
      `${meta}/meta.json`,
      JSON.stringify({ Name: "far", Metadata: { Description: "d" }, Endpoints: { docker: { Host: "unix:///far.sock" } } }),
    );
    const at = async (env: Record<string, string>, more = {}) => {
      const { host, context } = await resolveTarget({ configDir, env, ...more });
      return `${context} ${host}`;
    };
    expect(await at({ DOCKER_HOST: "unix:///env.sock" })).toBe("default unix:///env.sock");
    expect(await at({ DOCKER_CONTEXT: "far" })).toBe("far unix:///far.sock");
    expect(await at({ DOCKER_HOST: "unix:///env.sock", DOCKER_CONTEXT: "far" })).toBe("default unix:///env.sock");
    expect(await at({ DOCKER_HOST: "unix:///env.sock" }, { context: "far" })).toBe("far unix:///far.sock");
    expect(await at({}, { host: "unix:///flag.sock" })).toBe("default unix:///flag.sock");
    await expect(at({ DOCKER_CONTEXT: "nope" })).rejects.toThrow('context "nope": context not found');
    writeFileSync(`${configDir}/config.json`, JSON.stringify({ currentContext: "far" }));
    expect(await at({})).toBe("far unix:///far.sock");
  });
});
