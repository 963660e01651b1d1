// What reaches the engine of a user's credentials, beside the docker CLI with the same configuration: plain ones, tokens, helpers; and what login and logout
// leave behind.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

const MAIN = new URL("../main.ts", import.meta.url).pathname;
const missing = Bun.which("docker") ? [] : ["docker"];
if (missing.length) console.log(`skip: ${missing.join(", ")} not installed`);

/** Keeps its secrets as files beside itself, and writes down what it was asked. */
const HELPER = `#!/bin/sh
dir=$(dirname "$0"); input=$(cat)
echo "$1 $input" >> "$dir/calls"
case "$1" in
store) key=$(printf %s "$input" | sed 's/.*"ServerURL":"\\([^"]*\\)".*/\\1/' | tr /: __); printf %s "$input" > "$dir/secret-$key" ;;
get) key=$(printf %s "$input" | tr /: __); if [ -e "$dir/secret-$key" ]; then cat "$dir/secret-$key"; else echo "credentials not found in native keychain"; exit 1; fi ;;
erase) key=$(printf %s "$input" | tr /: __); rm -f "$dir/secret-$key" ;;
list) echo "{}" ;;
esac
`;

describe.skipIf(missing.length > 0)("credentials", () => {
  let dir: string;
  let server: Server;
  let port: number;
  let headers: Record<string, unknown>[] = [];
  let answer = "";
  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), "jubako-credentials-"));
    mkdirSync(join(dir, "bin"));
    writeFileSync(join(dir, "bin/docker-credential-fake"), HELPER, { mode: 0o755 });
    server = createServer(async (request, response) => {
      const parts: Buffer[] = [];
      for await (const part of request) parts.push(part as Buffer);
      const url = request.url ?? "";
      response.setHeader("content-type", "application/json");
      response.setHeader("api-version", "1.47");
      if (url.endsWith("/_ping")) response.end("OK");
      else if (url.includes("/auth")) {
        headers.push(JSON.parse(Buffer.concat(parts).toString()));
        response.end(answer);
      } else if (url.includes("/images/")) {
        const header = request.headers["x-registry-auth"] as string | undefined;
        headers.push(header === undefined ? {} : JSON.parse(Buffer.from(header, "base64url").toString() || "{}"));
        response.end('{"status":"done"}\r\n');
      } else response.end("{}");
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    port = (server.address() as { port: number }).port;
  });
  afterAll(() => {
    server?.closeAllConnections();
    server?.close();
    rmSync(dir, { recursive: true, force: true });
  });
  beforeEach(() => {
    headers = [];
  });

  const run = (program: string[], config: string, args: string[], input = ""): Promise<{ status: number; out: string; err: string }> =>
    new Promise((resolve) => {
      const env = { ...process.env, DOCKER_CONFIG: config, DOCKER_HOST: `tcp://127.0.0.1:${port}`, PATH: `${dir}/bin:${process.env.PATH}` };
      const child = spawn(program[0]!, [...program.slice(1), ...args], { env });
      let [out, err] = ["", ""];
      child.stdout.on("data", (piece) => {
        out += piece;
      });
      child.stderr.on("data", (piece) => {
        err += piece;
      });
      child.on("close", (status) => resolve({ status: status ?? 255, out, err }));
      child.stdin.end(input);
    });
  let configs = 0;
  const configOf = (content: object): string => {
    const path = join(dir, `config${configs++}`);
    mkdirSync(path);
    writeFileSync(join(path, "config.json"), JSON.stringify(content));
    return path;
  };
  /** What both send, which must be the same. */
  const both = async (content: object, ...args: string[]): Promise<Record<string, unknown>> => {
    headers = [];
    await run(["docker"], configOf(content), args);
    const theirs = headers.splice(0);
    const ours = await run([process.execPath, MAIN], configOf(content), args);
    expect([args, ours.err, headers]).toEqual([args, "", theirs]);
    return theirs[0] ?? {};
  };
  const auth = (text: string) => Buffer.from(text).toString("base64");

  test("pull and push send what the configuration says for that registry, and nothing of another's", async () => {
    const auths = {
      "https://index.docker.io/v1/": { auth: auth("hub:p:w") },
      "registry.example:5000": { auth: auth("me:secret") },
      "https://old.example/v1/": { auth: auth("old:one") },
      "token.example": { auth: auth("tok:"), identitytoken: "IDENTITY" },
      "bearer.example": { registrytoken: "BEARER" },
    };
    expect(await both({ auths }, "pull", "busybox")).toMatchObject({ username: "hub", password: "p:w" });
    expect(await both({ auths }, "pull", "registry.example:5000/a/b:1")).toMatchObject({ username: "me", password: "secret" });
    expect(await both({ auths }, "push", "registry.example:5000/a/b:1")).toMatchObject({ username: "me" });
    expect(await both({ auths }, "pull", "old.example/x")).toMatchObject({ username: "old" });
    expect(await both({ auths }, "pull", "token.example/x")).toMatchObject({ identitytoken: "IDENTITY" });
    expect(await both({ auths }, "pull", "bearer.example/x")).toMatchObject({ registrytoken: "BEARER" });
    expect(await both({ auths }, "pull", "other.example/x")).not.toHaveProperty("username");
  }, 60_000);

  test("helpers: the store, one for a registry, tokens, and none there", async () => {
    const secret = (server: string, Username: string, Secret: string) =>
      writeFileSync(join(dir, "bin", `secret-${server.replace(/[/:]/g, "_")}`), JSON.stringify({ ServerURL: server, Username, Secret }));
    secret("https://index.docker.io/v1/", "hub", "from-store");
    secret("one.example", "<token>", "IDENTITY");
    secret("two.example", "two", "secret");
    expect(await both({ credsStore: "fake" }, "pull", "busybox")).toMatchObject({ username: "hub", password: "from-store" });
    expect(await both({ credsStore: "fake" }, "pull", "one.example/x")).toMatchObject({ identitytoken: "IDENTITY" });
    expect(await both({ credHelpers: { "two.example": "fake" } }, "pull", "two.example/x")).toMatchObject({ username: "two" });
    expect(await both({ credHelpers: { "two.example": "fake" } }, "pull", "one.example/x")).not.toHaveProperty("username");
    expect(await both({ credsStore: "fake" }, "pull", "three.example/x")).not.toHaveProperty("username");
  }, 60_000);

  test("login and logout leave the same behind: in the file, with a token, and in the helper", async () => {
    for (const [name, content, said] of [
      ["file", {}, { Status: "Login Succeeded", IdentityToken: "" }],
      ["token", {}, { Status: "Login Succeeded", IdentityToken: "IDENTITY" }],
      ["helper", { credsStore: "fake" }, { Status: "Login Succeeded", IdentityToken: "" }],
      ["helper token", { credsStore: "fake" }, { Status: "Login Succeeded", IdentityToken: "IDENTITY" }],
    ] as const) {
      answer = JSON.stringify(said);
      const left: unknown[] = [];
      for (const program of [["docker"], [process.execPath, MAIN]]) {
        const config = configOf(content);
        const calls = join(dir, "bin/calls");
        const read = () => JSON.parse(readFileSync(join(config, "config.json"), "utf8"));
        rmSync(calls, { force: true });
        headers = [];
        const login = await run(program, config, ["login", "-u", "me", "--password-stdin", "login.example"], "pw\n");
        const after = read();
        const logout = await run(program, config, ["logout", "login.example"]);
        let stored: unknown[] = [];
        try {
          stored = readFileSync(calls, "utf8")
            .split("\n")
            .filter((line) => /^(store|erase)/.test(line))
            .map((line) => line.replace(/^store (.*)$/, (_, json) => `store ${JSON.stringify(Object.entries(JSON.parse(json)).sort())}`));
        } catch {
          // no helper
        }
        left.push({ status: login.status, out: login.out, headers, after, logout: logout.out, end: read(), stored });
      }
      expect([name, left[1]]).toEqual([name, left[0]]);
    }
  }, 60_000);
});
