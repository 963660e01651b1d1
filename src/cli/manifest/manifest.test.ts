// The manifest commands beside the docker CLI's, with a registry on loopback: the same output, the same files, the same bytes pushed; each goes on where the
// other left off.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openRepository } from "../../distribution/index.ts";
import { digestOf, MEDIA, parseTagged } from "../../oci/index.ts";

const missing = ["docker", "docker-registry"].filter((program) => !Bun.which(program));
if (missing.length) console.log(`skip: ${missing.join(", ")} not installed`);
const MAIN = new URL("../../main.ts", import.meta.url).pathname;

interface Said {
  status: number;
  out: string;
  err: string;
}

describe.skipIf(missing.length > 0)("manifest", () => {
  let dir: string;
  let host: string;
  let registry: ChildProcess;
  const run = (configDir: string, program: string[], args: string[]): Said => {
    const env = { ...process.env, DOCKER_CONFIG: configDir };
    const { status, stdout, stderr } = spawnSync(program[0]!, [...program.slice(1), "manifest", ...args], { env, encoding: "utf8" });
    // the program's name is its own
    return { status: status ?? 255, out: stdout, err: stderr.replaceAll("jubako", "docker") };
  };
  const docker = (config: string, ...args: string[]) => run(join(dir, config), ["docker"], args);
  const jubako = (config: string, ...args: string[]) => run(join(dir, config), [process.execPath, MAIN], args);

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), "jubako-manifest-"));
    const probe = createServer();
    await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
    host = `127.0.0.1:${(probe.address() as { port: number }).port}`;
    await new Promise((resolve) => probe.close(resolve));
    writeFileSync(
      join(dir, "config.yml"),
      `version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: ${dir}/data}}\nhttp: {addr: "${host}"}\n`,
    );
    registry = spawn("docker-registry", ["serve", join(dir, "config.yml")], { stdio: "ignore" });
    for (let tries = 0; tries < 100 && !(await fetch(`http://${host}/v2/`).catch(() => undefined)); tries++) await Bun.sleep(50);
    for (const [name, dialect, architecture] of [
      ["bb:amd64", "docker", "amd64"],
      ["other/bb:arm", "oci", "arm64"],
      ["bb:latest", "docker", "amd64"],
    ] as const) {
      const repository = openRepository(parseTagged(`${host}/${name}`), { insecure: [], mirrors: [] }, undefined, "push");
      const put = async (text: string, mediaType: string) => {
        const descriptor = { mediaType, size: text.length, digest: digestOf(text) };
        await repository.push(descriptor, async function* () {
          yield Buffer.from(text);
        });
        return descriptor;
      };
      const oci = dialect === "oci";
      const layer = await put(`layer ${name}`, oci ? MEDIA.ociLayer : MEDIA.dockerLayer);
      const rootfs = { type: "layers", diff_ids: [layer.digest] };
      const config = await put(
        JSON.stringify({ architecture, os: "linux", ...(architecture === "arm64" ? { variant: "v8" } : {}), rootfs }),
        oci ? MEDIA.ociConfig : MEDIA.dockerConfig,
      );
      const mediaType = oci ? MEDIA.ociManifest : MEDIA.dockerManifest;
      const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, config, layers: [layer] }));
      await repository.pushManifest({ mediaType, digest: digestOf(bytes), size: bytes.length }, bytes, name.split(":")[1]);
    }
    for (const config of ["ours", "theirs", "shared"]) mkdirSync(join(dir, config));
  });
  afterAll(() => {
    registry?.kill();
    rmSync(dir, { recursive: true, force: true });
  });

  const files = (config: string): Record<string, string> => {
    const root = join(dir, config, "manifests");
    const out: Record<string, string> = {};
    try {
      for (const list of readdirSync(root))
        for (const name of readdirSync(join(root, list))) out[`${list}/${name}`] = readFileSync(join(root, list, name), "utf8");
    } catch {
      // there are none
    }
    return out;
  };

  test("each step says and leaves what docker's does", () => {
    const steps: string[][] = [
      ["create", "--insecure", "LIST:1", "HOST/bb:amd64", "HOST/other/bb:arm"],
      ["create", "--insecure", "LIST:1", "HOST/bb:amd64"],
      ["create", "--insecure", "--amend", "LIST:1", "HOST/bb:latest"],
      ["annotate", "LIST:1", "HOST/other/bb:arm", "--arch", "arm", "--variant", "v7", "--os-version", "1", "--os-features", "a,b"],
      ["annotate", "LIST:1", "HOST/nope:arm", "--arch", "arm64"],
      ["annotate", "LIST:2", "HOST/bb:amd64", "--arch", "arm64"],
      ["annotate", "LIST:1", "HOST/bb:amd64", "--arch", "bogus"],
      ["inspect", "LIST:1"],
      ["inspect", "-v", "LIST:1"],
      ["inspect", "LIST:1", "HOST/other/bb:arm"],
      ["inspect", "LIST:1", "HOST/other/bb:none"],
      ["inspect", "--insecure", "HOST/bb:amd64"],
      ["inspect", "--insecure", "-v", "HOST/bb"],
      ["inspect", "--insecure", "HOST/none:1"],
      ["inspect", "BAD"],
      ["inspect", "x@sha256:1"],
      ["push", "--insecure", "LIST:1"],
      ["push", "LIST:none"],
      ["push", "--insecure", "-p", "LIST:1"],
      ["inspect", "--insecure", "LIST:1"],
      ["inspect", "--insecure", "-v", "LIST:1"],
      ["create", "--insecure", "LIST:3", "HOST/none:1"],
      ["create", "--insecure", "LIST:3", "LIST:1"],
      ["create", "--insecure", "LIST:4", "HOST/other/bb:arm", "HOST/bb:amd64"],
      ["inspect", "LIST:4"],
      ["push", "--insecure", "LIST:4"],
      ["create", "--insecure", "foo:1", "HOST/bb"],
      ["push", "foo:1"],
      ["rm", "LIST:4", "LIST:none", "foo:1"],
      ["create", "x"],
      ["rm"],
    ];
    for (const step of steps) {
      // each pushes under a name of its own, so that neither finds the other's
      const name = (side: string) => step.map((word) => word.replace("LIST", `HOST/${side}`).replace("HOST", host));
      const theirs = docker("theirs", ...name("theirs"));
      const ours = jubako("ours", ...name("ours"));
      const same = (text: string) => text.replaceAll("/ours", "/theirs");
      expect([step.join(" "), ours.status, same(ours.out), same(ours.err).trim()]).toEqual([
        step.join(" "),
        theirs.status,
        theirs.out,
        theirs.err.trim(),
      ]);
      expect(Object.fromEntries(Object.entries(files("ours")).map(([file, text]) => [file.replace("_ours-", "_theirs-"), text]))).toEqual(
        files("theirs"),
      );
    }
  }, 120_000);

  test("a list that one began the other annotates and pushes; the registry has one and the same", async () => {
    expect(docker("shared", "create", "--insecure", `${host}/shared:1`, `${host}/bb:amd64`).status).toBe(0);
    expect(jubako("shared", "create", "--insecure", "-a", `${host}/shared:1`, `${host}/other/bb:arm`).status).toBe(0);
    expect(docker("shared", "annotate", `${host}/shared:1`, `${host}/other/bb:arm`, "--variant", "v9").status).toBe(0);
    const pushed = jubako("shared", "push", "--insecure", "--purge", `${host}/shared:1`);
    expect(pushed.status).toBe(0);
    const { descriptor } = await openRepository(parseTagged(`${host}/shared:1`), { insecure: [], mirrors: [] }).manifest("1");
    expect(pushed.out.trim().split("\n").at(-1)).toBe(descriptor.digest);
    expect(docker("shared", "inspect", "--insecure", `${host}/shared:1`).out).toContain('"variant": "v9"');
  }, 60_000);
});
