// The same command lines through docker's CLI and ours: the same requests to an engine that only notes them down, and the same output and exit
// statuses against a real dockerd.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { type Daemon, normal, normalised, OURS, run, startDockerd, which } from "./harness.ts";

const docker = which("docker");
const dockerIs28 = docker !== undefined && (await run([docker, "--version"])).out.startsWith("Docker version 28.");
const linesOf = (name: string) =>
  readFileSync(new URL(name, import.meta.url), "utf8")
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"));

/** A line's words, with 'single' and "double" quotes. */
function words(line: string): string[] {
  return [...line.matchAll(/(?:[^\s"']+|"[^"]*"|'[^']*')+/g)].map(([word]) => word.replaceAll(/"([^"]*)"|'([^']*)'/g, (_, a, b) => a ?? b));
}

/** Runs `fn` for each, a few at a time. */
async function each<T>(items: T[], fn: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items];
  await Promise.all(
    Array.from({ length: 4 }, async () => {
      for (let item = queue.shift(); item !== undefined; item = queue.shift()) await fn(item);
    }),
  );
}

const READERS = /^(ps|images|inspect|history|version|info|context|logs|top|port|(container|image|network|volume) (inspect|ls)|--?[\w-]+)\b/;
const reads = (line: string) => READERS.test(line);

/** Fields without a value say the same as absent ones. */
function meaning(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(meaning);
  if (typeof value !== "object" || value === null) return value;
  const out: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))) {
    const m = meaning(item);
    const empty = m === null || m === "" || m === 0 || m === false || (typeof m === "object" && m !== null && Object.keys(m).length === 0);
    const network = key === "EndpointsConfig" ? Object.keys(item as object).length > 0 : false;
    if (network) out[key] = Object.fromEntries(Object.entries(item as object).map(([name, endpoint]) => [name, meaning(endpoint)]));
    else if ((key === "Env" || key === "Binds") && Array.isArray(item))
      out[key] = [...(item as string[])].sort(); // docker has them in no order
    else if (!empty && !(key === "MemorySwappiness" && m === -1) && !(key === "ConsoleSize" && String(m) === "0,0")) out[key] = m;
  }
  return out;
}

describe.skipIf(!dockerIs28)("requests (docker CLI 28 is on PATH)", () => {
  const dir = mkdtempSync(`${tmpdir()}/jubako-cli-golden-`);
  const noted = new Map<string, unknown[]>();
  // Each run of a CLI has a socket path of its own: `tag` tells whose request it is.
  const server = (tag: string) =>
    createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        response.setHeader("Api-Version", "1.50");
        response.setHeader("Ostype", "linux");
        response.setHeader("Content-Type", "application/json");
        const url = new URL(request.url!, "http://x");
        if (url.pathname === "/_ping") return response.end("OK");
        const body = Buffer.concat(chunks).toString();
        const query = [...url.searchParams].sort();
        noted
          .get(tag)!
          .push({ method: request.method, path: url.pathname.replace(/^\/v[\d.]+/, ""), query, body: body && meaning(JSON.parse(body)) });
        if (url.pathname.endsWith("/create")) {
          response.statusCode = 201;
          return response.end(JSON.stringify({ Id: "a".repeat(64), Name: "x", Warnings: [], Warning: "" }));
        }
        if (url.pathname.endsWith("/update")) return response.end("{}");
        response.statusCode = 204;
        return response.end();
      });
    });
  beforeAll(() => {
    writeFileSync(`${dir}/ef`, "# c\nA=1\nFOO\nNOPE\n\nB=x y\n");
    writeFileSync(`${dir}/lf`, "l1=v\nl2\n");
    writeFileSync(`${dir}/sec.json`, '{ "defaultAction": "SCMP_ACT_ALLOW" }');
  });
  afterAll(() => rmSync(dir, { recursive: true }));

  let sockets = 0;
  async function capture(program: string[], line: string): Promise<unknown> {
    const tag = `${dir}/${sockets++}.sock`;
    noted.set(tag, []);
    const listening = server(tag).listen(tag);
    try {
      const env = { DOCKER_HOST: `unix://${tag}`, DOCKER_CONFIG: dir, FOO: "bar" };
      const { status, err } = await run([...program, ...words(line)], { env, cwd: dir });
      return { line, requests: noted.get(tag), status, err: normal(err) };
    } finally {
      listening.close();
      listening.closeAllConnections();
    }
  }

  test(
    "are the same",
    () =>
      each(linesOf("requests.txt"), async (line) => {
        const [theirs, ours] = await Promise.all([capture([docker!], line), capture(OURS, line)]);
        expect(ours).toEqual(theirs);
      }),
    120_000,
  );
});

describe.skipIf(!dockerIs28 || !which("dockerd"))("output (docker CLI 28 and dockerd are on PATH)", () => {
  let daemon: Daemon | undefined;
  beforeAll(async () => {
    daemon = await startDockerd();
    if (!daemon) return;
    const setUp = (line: string) => run([docker!, "-H", daemon!.host, ...words(line)]);
    await setUp("run -d --name c1 --network host -l a=b -l com.x=1 -p 80:81 -e X=1 busybox sleep 100000");
    await setUp("run --name c2 --network none busybox sh -c 'echo out; sleep 0.1; echo err >&2; touch /tmp/f; exit 4'");
    await setUp("volume create v1 --label x=y");
    await setUp("network create -d null n1");
  }, 60_000);
  afterAll(async () => {
    if (!daemon) return;
    await run([docker!, "-H", daemon.host, "rm", "-f", "c1", "c2"]);
    await daemon.stop();
  }, 60_000);

  test("is the same", async () => {
    const compare = async (line: string) => {
      if (!daemon) return;
      const env = { DOCKER_HOST: daemon.host, DOCKER_CONFIG: daemon.dir };
      const theirs = normalised(await run([docker!, ...words(line)], { env, cwd: daemon.dir }));
      const ours = normalised(await run([...OURS, ...words(line)], { env, cwd: daemon.dir }));
      // A slip of theirs: "SRun 'docker images --help'".
      theirs.err = theirs.err.replace("SRun", "Run");
      expect({ line, ...ours }).toEqual({ line, ...theirs });
    };
    // What changes nothing can go side by side; containers that come and go would show in lists.
    const [reading, changing] = [linesOf("commands.txt").filter(reads), linesOf("commands.txt").filter((line) => !reads(line))];
    await each(reading, compare);
    for (const line of changing) await compare(line);
  }, 300_000);
});
