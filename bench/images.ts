// Pull with unpacking, and push, by the same docker CLI: Debian's dockerd and jubakod in turns, from and to Debian's docker-registry on loopback, of an
// image that is made for the purpose. Caches are cold before each measurement. Ratios above 1 mean that ours is better.
//   bun bench/images.ts [megabytes, compressed] [files] [rounds]          (300 25000 1; the figures of record: 1400 110000 1)
// One round is the honest figure: in a second one both pay for the removal of the first's files, as ext4 then passes over inodes that were freed lately,
// and jubakod removes them while the next pull runs.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createGzip } from "node:zlib";
import { openRepository } from "../src/distribution/index.ts";
import {
  createDigester,
  type Descriptor,
  digestOf,
  MEDIA,
  parseTagged,
  TAR_END,
  tarEntry,
  tarHeader,
  tarPadding,
} from "../src/oci/index.ts";
import { median, type Row, report } from "./support/measure.ts";
import { DOCKER, must, type Peer, startDockerd, startJubakod } from "./support/peers.ts";
import { startRegistry } from "./support/registry.ts";

const megabytes = Number(process.argv[2] ?? 300);
const files = Number(process.argv[3] ?? 25_000);
const rounds = Number(process.argv[4] ?? 1);
const LAYERS = 8;
/** Bytes of the generated files for each byte that gzip makes of them, about. */
const RATIO = 1.8;

/** Numbers that are the same in every run. */
function createRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Text and noise in turns, so that gzip finds about half. */
function makePool(random: () => number): Buffer {
  const pool = Buffer.alloc(24 << 20);
  const words = Array.from({ length: 2000 }, () =>
    Array.from({ length: 3 + Math.floor(random() * 8) }, () => String.fromCharCode(97 + Math.floor(random() * 26))).join(""),
  );
  for (let at = 0; at < pool.length; ) {
    if (random() < 0.5) {
      let text = "";
      while (text.length < 2000) text += `${words[Math.floor(random() ** 2 * words.length)]} `;
      at += pool.write(text, at, "latin1") || pool.length;
    } else {
      const noise = Buffer.from(crypto.getRandomValues(new Uint8Array(600)));
      at += noise.copy(pool, at) || pool.length;
    }
  }
  return pool;
}

async function* layerTar(layer: number, count: number, bytes: number, pool: Buffer): AsyncGenerator<Uint8Array> {
  const random = createRandom(layer + 7);
  // a few large files, many small ones, as in a root file system
  const sizes = Array.from({ length: count }, () => random() ** 6 + 0.01);
  const sum = sizes.reduce((a, b) => a + b, 0);
  const perDirectory = 20;
  for (const [i, share] of sizes.entries()) {
    const directory = `usr/layer${layer}/d${Math.floor(i / perDirectory / 30)}/s${Math.floor(i / perDirectory)}`;
    if (i % perDirectory === 0) yield tarHeader(tarEntry(`${directory}/`, "directory", { mtimeSec: 1_700_000_000 }));
    const size = Math.round((share / sum) * bytes);
    yield tarHeader(tarEntry(`${directory}/file${i}.so`, "file", { size, mtimeSec: 1_700_000_000 + i, mode: i % 7 ? 0o644 : 0o755 }));
    for (let left = size; left > 0; ) {
      const from = Math.floor(random() * (pool.length - 1));
      const piece = pool.subarray(from, from + Math.min(left, 1 << 18));
      left -= piece.length;
      yield piece;
    }
    yield tarPadding(size);
  }
  yield TAR_END;
}

/** Makes the image and pushes it. Answers its compressed and its unpacked size in bytes. */
async function makeImage(name: string): Promise<{ compressed: number; unpacked: number }> {
  const repository = openRepository(parseTagged(name), { insecure: [], mirrors: [] }, undefined, "push");
  const pool = makePool(createRandom(1));
  const layers: Descriptor[] = [];
  const diffIds: string[] = [];
  let unpacked = 0;
  const make = async (i: number) => {
    const path = join(scratch, `layer${i}`);
    const inner = createDigester();
    const outer = createDigester();
    const gzip = createGzip({ level: 5 });
    const feeding = (async () => {
      for await (const piece of layerTar(i, Math.round(files / LAYERS), (megabytes * RATIO * 1e6) / LAYERS, pool)) {
        inner.update(piece);
        unpacked += piece.length;
        if (!gzip.write(piece)) await new Promise((resolve) => gzip.once("drain", resolve));
      }
      gzip.end();
    })();
    const writer = Bun.file(path).writer();
    let size = 0;
    for await (const piece of gzip) {
      outer.update(piece as Uint8Array);
      writer.write(piece as Uint8Array);
      await writer.flush();
      size += (piece as Uint8Array).length;
    }
    await writer.end();
    await feeding;
    const descriptor = { mediaType: MEDIA.dockerLayerGzip, digest: outer.digest(), size };
    await repository.push(descriptor, () => Bun.file(path).stream() as unknown as AsyncIterable<Uint8Array>);
    rmSync(path);
    layers[i] = descriptor;
    diffIds[i] = inner.digest();
  };
  for (let i = 0; i < LAYERS; i += 2) await Promise.all([make(i), make(i + 1)]);
  const config = Buffer.from(
    JSON.stringify({ architecture: "amd64", os: "linux", config: {}, rootfs: { type: "layers", diff_ids: diffIds }, history: [] }),
  );
  const configDescriptor = { mediaType: MEDIA.dockerConfig, digest: digestOf(config), size: config.length };
  await repository.push(configDescriptor, async function* () {
    yield config;
  });
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.dockerManifest, config: configDescriptor, layers }));
  await repository.pushManifest({ mediaType: MEDIA.dockerManifest, digest: digestOf(manifest), size: manifest.length }, manifest, "1");
  return { compressed: layers.reduce((sum, { size }) => sum + size, 0), unpacked };
}

/** The daemons and everything they started. */
function tree(peer: Peer): number[] {
  const parents = new Map<number, number>();
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, "utf8");
      parents.set(Number(entry), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
    } catch {
      // it ended meanwhile
    }
  }
  const found = new Set(peer.daemons());
  for (let grown = true; grown; ) {
    grown = false;
    for (const [pid, parent] of parents)
      if (found.has(parent) && !found.has(pid)) {
        found.add(pid);
        grown = true;
      }
  }
  return [...found];
}

/** CPU seconds of the daemons and of their children that ended. */
function cpu(peer: Peer): number {
  return peer.daemons().reduce((sum, pid) => {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return sum + [11, 12, 13, 14].reduce((ticks, i) => ticks + Number(fields[i]), 0) / 100;
  }, 0);
}

function residentMb(peer: Peer): number {
  let kb = 0;
  for (const pid of tree(peer)) {
    try {
      kb += Number(/Pss:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1] ?? 0);
    } catch {
      // it ended meanwhile
    }
  }
  return kb / 1024;
}

interface Measured {
  seconds: number;
  cpu: number;
  memory: number;
}

async function measured(peer: Peer, ...args: string[]): Promise<Measured> {
  spawnSync("sync");
  try {
    writeFileSync("/proc/sys/vm/drop_caches", "3");
  } catch {
    console.error("caches can't be dropped: they stay warm");
  }
  const before = cpu(peer);
  let memory = 0;
  const sampling = setInterval(() => {
    memory = Math.max(memory, residentMb(peer));
  }, 500);
  const began = performance.now();
  const status = await new Promise<number>((resolve) => {
    const child = spawn(DOCKER, ["-H", peer.host, ...args], { stdio: ["ignore", "ignore", "inherit"] });
    child.on("exit", (code) => resolve(code ?? 255));
  });
  const seconds = (performance.now() - began) / 1000;
  clearInterval(sampling);
  if (status !== 0) throw new Error(`${peer.name}: docker ${args.join(" ")}: ${status}`);
  return { seconds, cpu: cpu(peer) - before, memory };
}

for (const program of ["docker-registry", "dockerd", "docker"]) {
  if (spawnSync("sh", ["-c", `command -v ${program}`]).status !== 0) {
    console.error(`bench/images.ts needs ${program}`);
    process.exit(1);
  }
}

const scratch = mkdtempSync(join(tmpdir(), "jubako-bench-images-"));
const registry = await startRegistry(join(scratch, "registry"));
const peers: Peer[] = [];
try {
  const name = `${registry.address}/bench/image:1`;
  const { compressed, unpacked } = await makeImage(name);
  const mb = (bytes: number) => Math.round(bytes / 1e6);
  const what = `${mb(compressed)} MB (${mb(unpacked)} unpacked) in ${LAYERS} layers, ${files} files`;
  console.log(what);
  peers.push(await startDockerd());
  peers.push(await startJubakod());
  const rows: Row[] = [];
  const compare = async (title: string, goal: string, times: number, run: (peer: Peer, round: number) => Promise<Measured>) => {
    const results: Measured[][] = [[], []];
    for (let round = 0; round < times; round++)
      for (const [i, peer] of peers.entries()) {
        const result = await run(peer, round);
        console.log(
          `  ${title}: ${peer.name} ${result.seconds.toFixed(1)} s, CPU ${result.cpu.toFixed(1)} s, ${result.memory.toFixed(0)} MB`,
        );
        results[i]!.push(result);
      }
    const pick = (key: keyof Measured) => results.map((list) => median(list.map((one) => one[key]))) as [number, number];
    const row = (text: string, unit: string, [theirs, ours]: [number, number], wanted: string) =>
      rows.push({ what: `${title}${text}`, unit, theirs, ours, goal: wanted });
    row("", "s", pick("seconds"), goal);
    row(", CPU", "s", pick("cpu"), "");
    row(", peak memory", "MB", pick("memory"), "");
  };
  await compare("pull", "≥ 2, 3", rounds, async (peer, round) => {
    if (round > 0) must(peer, "rmi", name);
    return measured(peer, "pull", name);
  });
  // To a registry that has nothing of it, so that nothing can be taken over.
  const target = await startRegistry(join(scratch, "target"));
  try {
    await compare("push of what was pulled", "", 1, async (peer) => {
      const to = `${target.address}/${peer.name}/image:1`;
      must(peer, "tag", name, to);
      const result = await measured(peer, "push", to);
      must(peer, "rmi", to);
      return result;
    });
  } finally {
    await target.stop();
  }
  const tar = join(scratch, "import.tar");
  const writer = Bun.file(tar).writer();
  for await (const piece of layerTar(99, 2000, 300e6, makePool(createRandom(2)))) {
    writer.write(piece);
    await writer.flush();
  }
  await writer.end();
  const second = await startRegistry(join(scratch, "second"));
  try {
    for (const peer of peers) must(peer, "import", tar, "made:1");
    await compare("push of 300 MB that was imported", "", 1, async (peer) => {
      const to = `${second.address}/${peer.name}/made:1`;
      must(peer, "tag", "made:1", to);
      return measured(peer, "push", to);
    });
  } finally {
    await second.stop();
  }
  report(`Images by the docker CLI: ${what} (pulls: medians of ${rounds})`, "dockerd", rows);
} finally {
  for (const peer of peers.reverse()) await peer.stop();
  await registry.stop();
  rmSync(scratch, { recursive: true, force: true });
}
