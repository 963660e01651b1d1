// jubako-registry beside Debian's docker-registry: manifests and small blobs by the second (wrk), 1 GB up and down (curl), memory. Both are filled with the
// same bytes, take turns, and log no requests. Ratios above 1 mean that ours is better.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { median } from "./support/measure.ts";

const ROUNDS = Number(process.env.ROUNDS ?? 3);
const SECONDS = Number(process.env.SECONDS ?? 4);
const CONNECTIONS = [1, 16];
const MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json";
const root = new URL("../", import.meta.url).pathname;

interface Side {
  name: string;
  base: string;
  child: ChildProcess;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

async function start(name: string, command: (port: number) => string[]): Promise<Side> {
  const port = await freePort();
  const [program, ...args] = command(port) as [string, ...string[]];
  const child = spawn(program, args, { stdio: "ignore" });
  const base = `http://127.0.0.1:${port}`;
  for (let tries = 0; tries < 200; tries++) {
    if ((await fetch(`${base}/v2/`).catch(() => undefined))?.ok) return { name, base, child };
    if (child.exitCode !== null) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${name} did not come up`);
}

/** A request by curl: seconds. */
function curl(...args: string[]): number {
  const result = spawnSync("curl", ["-sS", "-f", "-o", "/dev/null", "-w", "%{time_total}", ...args], { encoding: "utf8" });
  if (result.status !== 0) throw new Error(`curl ${args.join(" ")}: ${result.stderr}`);
  return Number(result.stdout);
}

async function upload(side: Side, file: string, digest: string, name = "bench/image"): Promise<number> {
  const begun = await fetch(`${side.base}/v2/${name}/blobs/uploads/`, { method: "POST" });
  const location = new URL(begun.headers.get("location")!, side.base);
  location.searchParams.set("digest", digest);
  return curl("-T", file, "-H", "Content-Type: application/octet-stream", "-H", "Expect:", location.href);
}

/** Requests by the second. */
function wrk(url: string, connections: number): number {
  const result = spawnSync("wrk", ["-H", `Accept: ${MANIFEST_TYPE}`, "-t1", `-c${connections}`, `-d${SECONDS}`, url], { encoding: "utf8" });
  const rate = Number(/Requests\/sec:\s+([\d.]+)/.exec(result.stdout)?.[1]);
  if (!rate || /Non-2xx/.test(result.stdout)) throw new Error(`wrk ${url}: ${result.stdout}${result.stderr}`);
  return rate;
}

/** MB: all pages now, what is its own now, and the most there ever was. */
function memory(side: Side): { resident: number; own: number; peak: number } {
  const rollup = readFileSync(`/proc/${side.child.pid}/smaps_rollup`, "utf8");
  const status = readFileSync(`/proc/${side.child.pid}/status`, "utf8");
  const kb = (text: string, key: string) => Number(new RegExp(`${key}:\\s+(\\d+)`).exec(text)?.[1] ?? 0) / 1024;
  return {
    resident: kb(rollup, "Rss"),
    own: kb(rollup, "Private_Dirty") + kb(rollup, "Private_Clean"),
    peak: kb(status, "VmHWM"),
  };
}

for (const program of ["docker-registry", "wrk", "curl"]) {
  if (spawnSync("sh", ["-c", `command -v ${program}`]).status !== 0) {
    console.error(`bench/registry.ts needs ${program}`);
    process.exit(1);
  }
}
const dir = mkdtempSync(join(tmpdir(), "jubako-bench-registry-"));
const sides: Side[] = [];
try {
  writeFileSync(
    join(dir, "theirs.yml"),
    `version: 0.1\nlog: { level: error, accesslog: { disabled: true } }\nstorage: { filesystem: { rootdirectory: ${dir}/theirs }, cache: { blobdescriptor: inmemory } }\n`,
  );
  const binary = join(root, "dist/bin/jubako-registry");
  const ours =
    existsSync(binary) && process.env.SOURCE !== "1" ? [binary] : [process.execPath, join(root, "src/main.ts"), "jubako-registry"];
  sides.push(
    await start("docker-registry", (port) => [
      "env",
      `REGISTRY_HTTP_ADDR=127.0.0.1:${port}`,
      "docker-registry",
      "serve",
      join(dir, "theirs.yml"),
    ]),
    await start("jubako-registry", (port) => [
      ...ours,
      "serve",
      "--addr",
      `127.0.0.1:${port}`,
      "--root",
      `${dir}/ours`,
      "--log-level",
      "error",
    ]),
  );
  const [theirs, mine] = sides as [Side, Side];
  console.log(`ours: ${ours.join(" ")}`);

  const big = join(dir, "blob");
  const hash = createHash("sha256");
  const fd = openSync(big, "w");
  for (let i = 0; i < 1024; i++) {
    const piece = crypto.getRandomValues(new Uint8Array(65_536));
    for (let j = 0; j < 16; j++) {
      writeSync(fd, piece);
      hash.update(piece);
    }
  }
  closeSync(fd);
  const digest = `sha256:${hash.digest("hex")}`;
  const config = "{}";
  const configFile = join(dir, "config");
  writeFileSync(configFile, config);
  const configDigest = `sha256:${createHash("sha256").update(config).digest("hex")}`;
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: { mediaType: "application/vnd.docker.container.image.v1+json", size: config.length, digest: configDigest },
    layers: [{ mediaType: "application/vnd.docker.image.rootfs.diff.tar", size: 1 << 30, digest }],
  });

  const rows: [what: string, unit: string, values: [number, number], more: boolean][] = [];
  const compare = async (what: string, unit: string, rounds: number, more: boolean, measure: (side: Side) => Promise<number> | number) => {
    const values: [number[], number[]] = [[], []];
    for (let i = 0; i < rounds; i++) {
      values[0].push(await measure(theirs));
      values[1].push(await measure(mine));
    }
    rows.push([what, unit, [median(values[0]), median(values[1])], more]);
  };

  // "At rest" is what the word says: some seconds after the last request.
  const rest = () => new Promise((resolve) => setTimeout(resolve, 4000));
  await rest();
  rows.push(["memory at rest, private", "MB", [memory(theirs).own, memory(mine).own], false]);
  const gigabyte = (seconds: number) => 1024 / seconds;
  let pushes = 0;
  await compare("push of 1 GB", "MB/s", ROUNDS, true, async (side) => {
    // What the side before left to be written is not this one's burden.
    spawnSync("sync");
    return gigabyte(await upload(side, big, digest, `bench/push${pushes++}`));
  });
  for (const side of sides) {
    await upload(side, big, digest);
    await upload(side, configFile, configDigest);
    const put = await fetch(`${side.base}/v2/bench/image/manifests/v1`, {
      method: "PUT",
      body: manifest,
      headers: { "content-type": MANIFEST_TYPE },
    });
    if (put.status !== 201) throw new Error(`${side.name}: ${put.status} ${await put.text()}`);
  }
  const manifestDigest = `sha256:${createHash("sha256").update(manifest).digest("hex")}`;
  await compare("pull of 1 GB", "MB/s", ROUNDS, true, (side) => gigabyte(curl(`${side.base}/v2/bench/image/blobs/${digest}`)));
  for (const connections of CONNECTIONS) {
    const by = `${connections} connection${connections > 1 ? "s" : ""}`;
    await compare(`manifest by tag, ${by}`, "1/s", ROUNDS, true, (side) => wrk(`${side.base}/v2/bench/image/manifests/v1`, connections));
    await compare(`manifest by digest, ${by}`, "1/s", ROUNDS, true, (side) =>
      wrk(`${side.base}/v2/bench/image/manifests/${manifestDigest}`, connections),
    );
    await compare(`config blob, ${by}`, "1/s", ROUNDS, true, (side) =>
      wrk(`${side.base}/v2/bench/image/blobs/${configDigest}`, connections),
    );
  }
  await rest();
  rows.push(["memory after all that, at rest again, private", "MB", [memory(theirs).own, memory(mine).own], false]);
  rows.push(["memory at its peak, resident", "MB", [memory(theirs).peak, memory(mine).peak], false]);

  console.log("\nRegistry\n\n| what | docker-registry | jubako-registry | ratio |\n|---|---|---|---|");
  for (const [what, unit, [a, b], more] of rows)
    console.log(`| ${what} | ${a.toFixed(1)} ${unit} | ${b.toFixed(1)} ${unit} | ${(more ? b / a : a / b).toFixed(2)}× |`);
} finally {
  for (const { child } of sides) {
    child.kill("SIGTERM");
    await new Promise((resolve) => (child.exitCode !== null ? resolve(undefined) : child.once("exit", resolve)));
  }
  rmSync(dir, { recursive: true, force: true });
}
