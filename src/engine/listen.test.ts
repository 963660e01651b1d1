// Sockets of every kind, served by real processes.
import { afterAll, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { request } from "node:https";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { binding, check, SYS } from "../linux/index.ts";
import { listen } from "./listen.ts";
import { createServer } from "./server.ts";

const directory = mkdtempSync(join(tmpdir(), "jubako-core-listen-"));
afterAll(() => rmSync(directory, { recursive: true }));

const serve = createServer({
  routes: [{ method: "GET", path: "/_ping", handle: () => ({ text: "OK" }) }],
  traceDir: directory,
  log: () => {},
});
const off = { mode: "off" as const, ca: "", cert: "", key: "" };

function ping(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    socket.on("data", (data) => {
      text += data;
      if (text.endsWith("OK")) {
        socket.destroy();
        resolve(text);
      }
    });
    socket.on("error", reject);
    socket.write("GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n");
  });
}

test("a unix socket: private, taken over from the dead, not from the living", async () => {
  const path = join(directory, "a.sock");
  const listener = await listen(`unix://${path}`, { tls: off, group: "docker" }, serve);
  expect(statSync(path).mode & 0o777).toBe(0o660);
  expect(await ping(connect(path))).toStartWith("HTTP/1.1 200 OK");
  await expect(listen(`unix://${path}2`, { tls: off, group: "jubako-nobody" }, serve)).rejects.toThrow("group jubako-nobody not found");
  await expect(listen(`unix://${path}`, { tls: off, group: "docker" }, serve)).rejects.toThrow("another process serves it");
  listener.close();
});

test("tcp is refused until said how", async () => {
  const host = "tcp://127.0.0.1:0";
  await expect(listen(host, { tls: { ...off, mode: "unsaid" }, group: "" }, serve)).rejects.toThrow("whoever reaches it is root");
  (await listen(host, { tls: off, group: "" }, serve)).close();
});

test("an inherited descriptor", async () => {
  const AF_UNIX = 1;
  const SOCK_STREAM = 1;
  const path = join(directory, "fd.sock");
  const fd = check(binding.syscall(SYS.socket, AF_UNIX, SOCK_STREAM, 0), "socket");
  const address = Buffer.concat([new Uint8Array([AF_UNIX, 0]), Buffer.from(`${path}\0`)]);
  check(binding.syscall(SYS.bind, fd, address, address.length), "bind");
  check(binding.syscall(SYS.listen, fd, 16), "listen");
  const listener = await listen(`fd://${fd}`, { tls: off, group: "" }, serve);
  expect(await ping(connect(path))).toStartWith("HTTP/1.1 200 OK");
  listener.close();
  await expect(listen("fd://", { tls: off, group: "" }, serve)).rejects.toThrow("no sockets found via socket activation");
});

const openssl = spawnSync("openssl", ["version"]).status === 0;
if (!openssl) console.log("skip: openssl not installed");

test.skipIf(!openssl)("TLS lets only clients in whose certificate is verified", async () => {
  const file = (name: string) => join(directory, name);
  const run = (...args: string[]) => {
    const result = spawnSync("openssl", args, { cwd: directory });
    if (result.status !== 0) throw new Error(String(result.stderr));
  };
  run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2");
  for (const name of ["server", "client"]) {
    run("req", "-newkey", "rsa:2048", "-nodes", "-keyout", `${name}-key.pem`, "-out", `${name}.csr`, "-subj", "/CN=localhost");
    run(
      "x509",
      "-req",
      "-in",
      `${name}.csr`,
      "-CA",
      "ca.pem",
      "-CAkey",
      "ca-key.pem",
      "-CAcreateserial",
      "-out",
      `${name}.pem`,
      "-days",
      "2",
    );
  }
  const port = 20000 + (process.pid % 20000);
  const tls = { mode: "verify" as const, ca: file("ca.pem"), cert: file("server.pem"), key: file("server-key.pem") };
  const listener = await listen(`tcp://127.0.0.1:${port}`, { tls, group: "" }, serve);
  const get = (options: object) =>
    new Promise<string>((resolve, reject) => {
      const call = request(
        { host: "127.0.0.1", port, path: "/_ping", ca: readFileSync(file("ca.pem")), checkServerIdentity: () => undefined, ...options },
        (answer) => answer.on("data", (data) => resolve(String(data))).on("error", reject),
      );
      call.on("error", reject);
      call.on("close", () => reject(new Error("closed")));
      call.end();
    });
  expect(await get({ cert: readFileSync(file("client.pem")), key: readFileSync(file("client-key.pem")) })).toBe("OK");
  await expect(get({})).rejects.toThrow();
  const plain = await fetch(`http://127.0.0.1:${port}/_ping`);
  expect([plain.status, await plain.text()]).toEqual([400, "Client sent an HTTP request to an HTTPS server.\n"]);
  listener.close();
});
