// jubako-registry under the originals' engines (docker with our engine and with Debian's dockerd, podman), and our engine under the originals' registries.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { generateKeyPairSync, sign } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { endDaemon } from "./support/daemon.ts";
import { bin, busyboxTar, lacks, type Output, sh, startEngine, type TestEngine, until } from "./support/engine.ts";
import { freePort } from "./support/registry.ts";

const dir = mkdtempSync(join(tmpdir(), "jubako-engines-"));
const children: ChildProcess[] = [];
afterAll(async () => {
  for (const child of children) await endDaemon(child);
  rmSync(dir, { recursive: true, force: true });
});

function run(program: string, args: string[], options: { input?: string | Uint8Array; env?: Record<string, string> } = {}): Output {
  const { input } = options;
  const result = spawnSync(program, args, {
    encoding: "utf8",
    maxBuffer: 64 << 20,
    timeout: 60_000,
    env: { ...process.env, ...options.env },
    ...(input === undefined ? { stdio: ["ignore", "pipe", "pipe"] } : { input }),
  });
  return { status: result.status ?? 255, stdout: result.stdout ?? "", stderr: `${result.stderr ?? ""}${result.error ?? ""}` };
}

interface Served {
  address: string;
  root: string;
  child: ChildProcess;
}

async function serve(name: string, command: (address: string, root: string) => string[]): Promise<Served> {
  const address = `127.0.0.1:${await freePort()}`;
  const root = join(dir, name);
  mkdirSync(root);
  const [program, ...args] = command(address, root) as [string, ...string[]];
  const child = spawn(program, args, { stdio: "ignore" });
  children.push(child);
  // 401 is an answer, too.
  await until(`${name} answers`, () => fetch(`http://${address}/v2/`).catch(() => undefined));
  return { address, root, child };
}

const serveOurs = (name: string, ...flags: string[]) =>
  serve(name, (address, root) => [bin("jubako-registry"), "serve", "--addr", address, "--root", root, "--log-level", "error", ...flags]);

/** A login, and a push and a pull of busybox, by a docker CLI against an engine. */
function pushAndPull(docker: (...args: string[]) => Output, address: string): void {
  const must = (...args: string[]) => {
    const result = docker(...args);
    expect({ args, status: result.status, said: result.status === 0 ? "" : result.stderr }).toEqual({ args, status: 0, said: "" });
    return result.stdout;
  };
  const name = `${address}/some/where/busybox`;
  must("tag", "busybox", `${name}:1`);
  must("tag", "busybox", `${name}:two`);
  const pushed = must("push", `${name}:1`);
  expect(pushed).toMatch(/1: digest: sha256:[0-9a-f]{64} size: \d+\n/);
  // The second tag's layers are there already; another repository's are mounted.
  expect(must("push", `${name}:two`)).toContain("Layer already exists");
  must("tag", "busybox", `${address}/other:1`);
  expect(must("push", `${address}/other:1`)).toMatch(/Mounted from some\/where\/busybox|Layer already exists/);
  const digest = /digest: (sha256:[0-9a-f]{64})/.exec(pushed)![1]!;
  must("rmi", `${name}:1`, `${name}:two`, `${address}/other:1`, "busybox");
  expect(must("pull", `${name}:1`)).toContain(`Digest: ${digest}\n`);
  must("pull", `${name}@${digest}`);
  expect(must("pull", "-a", name)).toContain("two: Pulling from some/where/busybox");
  must("tag", `${name}:1`, "busybox");
}

let engine: TestEngine | undefined;
beforeAll(async () => {
  engine = lacks("docker") ? undefined : await startEngine();
}, 30_000);
afterAll(() => engine?.stop());

describe("jubako-registry", () => {
  test.skipIf(lacks("docker"))(
    "docker with our engine",
    async () => {
      const { address } = await serveOurs("with-ours");
      pushAndPull((...args) => engine!.docker(...args), address);
      expect(engine!.docker("push", `${address}/never/tagged`).stderr).toContain("An image does not exist locally with the tag");
      expect(engine!.docker("pull", `${address}/some/where/busybox:none`).stderr).toContain("not found");
    },
    60_000,
  );

  test.skipIf(lacks("docker"))(
    "docker login, with the right and with a wrong password",
    async () => {
      const users = join(dir, "users");
      writeFileSync(users, `me:${Bun.password.hashSync("secret", { algorithm: "bcrypt", cost: 5 })}\n`);
      const { address } = await serveOurs("with-users", "--htpasswd", users);
      const env = { DOCKER_CONFIG: join(dir, "docker-config") };
      const login = (password: string) => engine!.dockerWith({ env, input: password }, "login", "-u", "me", "--password-stdin", address);
      const refused = login("guess");
      expect([refused.status, refused.stderr]).toEqual([1, expect.stringContaining("401 Unauthorized")]);
      engine!.docker("tag", "busybox", `${address}/mine:1`);
      expect(engine!.dockerWith({ env }, "push", `${address}/mine:1`).stderr).toContain("unauthorized");
      expect(login("secret").stdout).toContain("Login Succeeded");
      expect(engine!.dockerWith({ env }, "push", `${address}/mine:1`).status).toBe(0);
      engine!.docker("rmi", `${address}/mine:1`);
      expect(engine!.dockerWith({ env }, "pull", `${address}/mine:1`).status).toBe(0);
      engine!.dockerWith({ env }, "logout", address);
      expect(engine!.dockerWith({ env }, "pull", `${address}/mine:1`).status).toBe(1);
    },
    60_000,
  );

  test.skipIf(lacks("docker"))(
    "docker login, push and pull with tokens of a service that hands them out",
    async () => {
      const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
      const asked: string[] = [];
      const b64 = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
      // May do whatever it asks for who is alice; nobody else gets one.
      const service = createServer((request, response) => {
        const url = new URL(request.url!, "http://service");
        if (request.method !== "GET") return void response.writeHead(404).end();
        if (request.headers.authorization !== `Basic ${btoa("alice:secret")}`) return void response.writeHead(401).end("{}");
        const scopes = url.searchParams.getAll("scope");
        asked.push(...scopes);
        const access = scopes.map((scope) => {
          const [type, name, actions] = scope.split(":") as [string, string, string];
          return { type, name, actions: actions.split(",") };
        });
        const now = Math.floor(Date.now() / 1000);
        const claims = { iss: "test", aud: url.searchParams.get("service"), sub: "alice", exp: now + 300, nbf: now - 10, access };
        const text = `${b64({ alg: "ES256", typ: "JWT" })}.${b64(claims)}`;
        const signature = sign("sha256", Buffer.from(text), { key: privateKey, dsaEncoding: "ieee-p1363" }).toString("base64url");
        response.setHeader("content-type", "application/json");
        response.end(JSON.stringify({ token: `${text}.${signature}`, expires_in: 300 }));
      });
      await new Promise<void>((resolve) => service.listen(0, "127.0.0.1", resolve));
      try {
        const realm = `http://127.0.0.1:${(service.address() as AddressInfo).port}/token`;
        const bundle = join(dir, "token.pem");
        writeFileSync(bundle, publicKey.export({ type: "spki", format: "pem" }));
        const { address } = await serve("with-tokens", (at, root) => {
          const file = join(dir, "tokens.yml");
          const token = `{ realm: "${realm}", service: registry, issuer: test, rootcertbundle: ${bundle} }`;
          writeFileSync(
            file,
            `version: 0.1\nlog: { level: error }\nstorage: { filesystem: { rootdirectory: ${root} } }\nhttp: { addr: "${at}" }\nauth: { token: ${token} }\n`,
          );
          return [bin("jubako-registry"), "serve", file];
        });
        // Not synchronously: the service answers from this very process.
        const docker = async (args: string[], input = "") => {
          const child = Bun.spawn(["docker", "--config", join(dir, "docker-token"), "-H", engine!.host, ...args], {
            stdin: Buffer.from(input),
            stdout: "pipe",
            stderr: "pipe",
          });
          const [out, err] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
          return { status: await child.exited, said: out + err };
        };
        const login = (password: string) => docker(["login", "-u", "alice", "--password-stdin", address], password);
        await docker(["tag", "busybox", `${address}/tokens/app:1`]);
        expect((await login("guess")).status).toBe(1);
        expect((await docker(["push", `${address}/tokens/app:1`])).status).toBe(1);
        expect((await login("secret")).said).toContain("Login Succeeded");
        expect((await docker(["push", `${address}/tokens/app:1`])).said).toContain("digest: sha256:");
        await docker(["rmi", `${address}/tokens/app:1`]);
        expect((await docker(["pull", `${address}/tokens/app:1`])).status).toBe(0);
        expect(asked).toContain("repository:tokens/app:pull,push");
        expect(asked).toContain("repository:tokens/app:pull");
      } finally {
        service.closeAllConnections();
        service.close();
      }
    },
    60_000,
  );

  test.skipIf(lacks("docker", "dockerd", "containerd"))(
    "docker with Debian's dockerd",
    async () => {
      const { address } = await serveOurs("with-dockerd");
      const host = `unix://${dir}/dockerd.sock`;
      const paths = ["--data-root", `${dir}/dockerd`, "--exec-root", `${dir}/dockerd-exec`, "--pidfile", `${dir}/dockerd.pid`, "-H", host];
      const child = spawn("dockerd", [...paths, "--bridge", "none", "--iptables=false", "--ip-forward=false", "--storage-driver", "vfs"], {
        stdio: "ignore",
      });
      try {
        const docker = (...args: string[]) => run("docker", ["-H", host, ...args]);
        await until("dockerd answers", () => docker("version").status === 0, 20_000);
        expect(run("docker", ["-H", host, "load"], { input: busyboxTar() }).status).toBe(0);
        pushAndPull(docker, address);
      } finally {
        await endDaemon(child);
        sh(`grep -o ' ${dir}/dockerd[^ ]*' /proc/self/mounts | xargs -r umount -l`);
      }
    },
    60_000,
  );

  test.skipIf(lacks("podman"))(
    "podman pushes, pulls, and lists",
    async () => {
      const { address } = await serveOurs("with-podman");
      const own = ["--root", `${dir}/podman`, "--runroot", `${dir}/run`, "--tmpdir", `${dir}/podman-tmp`, "--storage-driver", "vfs"];
      const podman = (...args: string[]) => {
        const result = run("podman", [...own, ...args]);
        if (result.status !== 0) throw new Error(`podman ${args.join(" ")}: ${result.stderr}`);
        return result.stdout;
      };
      try {
        writeFileSync(join(dir, "busybox.tar"), busyboxTar());
        podman("load", "-q", "-i", join(dir, "busybox.tar"));
        const image = podman("images", "-q").trim();
        for (const format of ["oci", "v2s2"]) {
          const name = `${address}/podman/busybox:${format}`;
          podman("push", "-q", "--tls-verify=false", "--format", format, image, name);
          podman("pull", "-q", "--tls-verify=false", name);
          expect(podman("image", "inspect", "-f", "{{.ManifestType}}", name)).toContain(format === "oci" ? "vnd.oci.image" : "vnd.docker");
        }
        const listed = podman("search", "--tls-verify=false", "--list-tags", `${address}/podman/busybox`);
        expect(listed.split(/\s+/).filter((word) => /^(oci|v2s2)$/.test(word))).toEqual(["oci", "v2s2"]);
        podman("manifest", "create", "both");
        for (const format of ["oci", "v2s2"])
          podman("manifest", "add", "--tls-verify=false", "both", `${address}/podman/busybox:${format}`);
        podman("manifest", "push", "--all", "--tls-verify=false", "both", `docker://${address}/podman/both:1`);
        const index = (await (await fetch(`http://${address}/v2/podman/both/manifests/1`)).json()) as { manifests: object[] };
        expect(index.manifests.length).toBe(2);
      } finally {
        sh(`podman ${own.join(" ")} rmi -af 2>/dev/null; grep -o ' ${dir}/podman[^ ]*' /proc/self/mounts | xargs -r umount -l`);
      }
    },
    60_000,
  );
});

describe("our engine", () => {
  for (const program of ["docker-registry", "registry"])
    test.skipIf(lacks("docker", program))(
      `pushes to and pulls from the original ${program}`,
      async () => {
        const { address, root } = await serve(`theirs-${program}`, (at, data) => {
          const file = join(dir, `${program}.yml`);
          writeFileSync(
            file,
            `version: 0.1\nlog: { level: error }\nstorage: { filesystem: { rootdirectory: ${data} } }\nhttp: { addr: "${at}" }\n`,
          );
          return [program, "serve", file];
        });
        pushAndPull((...args) => engine!.docker(...args), address);
        // What the original keeps is what our registry would have kept.
        const link = readFileSync(join(root, "docker/registry/v2/repositories/some/where/busybox/_manifests/tags/1/current/link"), "utf8");
        expect(link).toMatch(/^sha256:[0-9a-f]{64}$/);
      },
      60_000,
    );
});
