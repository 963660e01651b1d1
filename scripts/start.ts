// The second half of `npm start`: everything after the build.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { request } from "node:http";

const SOCKET = "/run/jubako/docker.sock";
const LOG = "/var/lib/jubako/jubakod.log";
const BIN = new URL("../dist/bin/", import.meta.url).pathname;
const IMAGE = "busybox";

/** One request to the engine; the status and the whole body. */
function ask(method: string, path: string, body?: Uint8Array, timeoutMs = 5000): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const req = request(
      { socketPath: SOCKET, method, path, timeout: timeoutMs, headers: body ? { "content-type": "application/x-tar" } : {} },
      (res) => {
        const chunks: Buffer[] = [];
        res.on("data", (chunk: Buffer) => chunks.push(chunk));
        res.on("end", () => resolve({ status: res.statusCode ?? 0, body: Buffer.concat(chunks).toString() }));
        res.on("error", reject);
      },
    );
    req.on("timeout", () => req.destroy(new Error(`${method} ${path}: no answer in ${timeoutMs} ms`)));
    req.on("error", reject);
    req.end(body);
  });
}

async function alive(): Promise<boolean> {
  return ask("GET", "/_ping").then(
    (answer) => answer.status === 200,
    () => false,
  );
}

async function startEngine(): Promise<void> {
  if (await alive()) {
    console.log(`jubako: the engine already listens on ${SOCKET}`);
    return;
  }
  mkdirSync("/var/lib/jubako", { recursive: true });
  mkdirSync("/run/jubako", { recursive: true });
  const log = openSync(LOG, "a");
  const engine = spawn(`${BIN}jubakod`, [], { detached: true, stdio: ["ignore", log, log] });
  let ended: number | null | undefined;
  engine.on("exit", (code) => {
    ended = code;
  });
  for (let tries = 0; tries < 200; tries++) {
    if (await alive()) {
      engine.unref();
      console.log(`jubako: the engine listens on ${SOCKET} (pid ${engine.pid}, log in ${LOG})`);
      return;
    }
    if (ended !== undefined) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const lines = existsSync(LOG) ? readFileSync(LOG, "utf8").trimEnd().split("\n").slice(-15).join("\n") : "";
  console.error(`jubako: the engine did not start${ended === undefined ? "" : ` (exit status ${ended})`}; the end of ${LOG}:\n${lines}`);
  process.exit(1);
}

async function bringImage(): Promise<void> {
  if ((await ask("GET", `/images/${IMAGE}/json`)).status === 200) return;
  console.log(`jubako: pulling ${IMAGE} from Docker Hub`);
  const pulled = await ask("POST", `/images/create?fromImage=${IMAGE}&tag=latest`, undefined, 60_000).catch((error: unknown) => ({
    status: 0,
    body: String(error),
  }));
  if (pulled.status === 200 && !pulled.body.includes('"errorDetail"')) return;
  console.log("jubako: Docker Hub is not reachable; making the image from this machine's busybox-static");
  const seed = spawnSync(process.execPath, [new URL("./seed-busybox.ts", import.meta.url).pathname], { maxBuffer: 64 << 20 });
  if (seed.status !== 0) throw new Error(`seed-busybox: ${seed.stderr.toString()}`);
  const loaded = await ask("POST", "/images/load?quiet=1", seed.stdout, 60_000);
  if (loaded.status !== 200 || loaded.body.includes('"errorDetail"')) throw new Error(`loading the image: ${loaded.body}`);
}

await startEngine();
await bringImage();
console.log(`jubako: running a first container (jubako trace run --rm ${IMAGE} echo …)\n`);
const run = spawnSync(
  `${BIN}jubako`,
  ["-H", `unix://${SOCKET}`, "trace", "run", "--rm", IMAGE, "echo", "Hello from a container that went through every layer."],
  {
    stdio: "inherit",
  },
);
if (run.status !== 0) {
  console.error(`jubako: the first container failed (exit status ${run.status}); the engine's log is ${LOG}`);
  process.exit(1);
}
console.log(`
Jubako is running. Go on with your own docker client:

  export DOCKER_HOST=unix://${SOCKET}
  docker run -it --rm ${IMAGE}

or with ours:

  export PATH=${BIN.replace(/\/$/, "")}:$PATH
  jubako ps -a

Stop the engine with: npm stop`);
process.exit(0);
