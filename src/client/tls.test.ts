// tcp with TLS: the server's certificate is checked against ca.pem, and ours is shown to it.
import { afterAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { createServer, type TLSSocket } from "node:tls";
import { connectClient } from "./index.ts";

const openssl = spawnSync("openssl", ["version"]).status === 0;
const dir = mkdtempSync(`${tmpdir()}/jubako-client-tls-`);
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function ssl(...args: string[]): void {
  const done = spawnSync("openssl", args, { cwd: dir });
  if (done.status !== 0) throw new Error(done.stderr.toString());
}

function certificates(): void {
  ssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca");
  for (const [name, san] of [
    ["server", "DNS:localhost,IP:127.0.0.1"],
    ["client", "DNS:client"],
  ] as const) {
    const prefix = name === "client" ? "" : "server-";
    writeFileSync(`${dir}/ext`, `subjectAltName=${san}\n`);
    ssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", `${prefix}key.pem`, "-out", "csr.pem", "-subj", `/CN=${name}`);
    ssl(
      "x509",
      "-req",
      "-in",
      "csr.pem",
      "-CA",
      "ca.pem",
      "-CAkey",
      "ca-key.pem",
      "-CAcreateserial",
      "-out",
      `${prefix}cert.pem`,
      "-days",
      "2",
      "-extfile",
      "ext",
    );
  }
}

describe.skipIf(!openssl)("TLS (openssl is on PATH)", () => {
  test("both sides are verified", async () => {
    certificates();
    const read = (name: string) => readFileSync(`${dir}/${name}`);
    let shown = "";
    const server = createServer(
      { key: read("server-key.pem"), cert: read("server-cert.pem"), ca: read("ca.pem"), requestCert: true, rejectUnauthorized: true },
      (socket: TLSSocket) => {
        shown = String(socket.getPeerCertificate().subject?.CN);
        socket.on("error", () => {});
        socket.on("data", () => void socket.write("HTTP/1.1 200 OK\r\nApi-Version: 1.50\r\nContent-Length: 2\r\n\r\n[]"));
      },
    );
    server.on("tlsClientError", () => {});
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const host = `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`;
    try {
      const client = await connectClient({ env: { DOCKER_HOST: host, DOCKER_TLS_VERIFY: "1", DOCKER_CERT_PATH: dir } });
      expect(await client.containers.list()).toEqual([]);
      expect(shown).toBe("client");
      client.close();
      const stranger = await connectClient({ env: { DOCKER_HOST: host, DOCKER_TLS_VERIFY: "1", DOCKER_CERT_PATH: "/nonexistent" } });
      await expect(stranger.containers.list()).rejects.toThrow();
      stranger.close();
    } finally {
      server.close();
    }
  }, 30_000);
});
