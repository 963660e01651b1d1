// For the tests: temporary directories, an image made from the host's busybox-static, a manager as a process of its own, and the programs on PATH.
import { execFile, spawn, spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, mkdtempSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { digestOf, hexOf, MEDIA, TAR_END, tarEntry, tarHeader, tarOf, tarPadding } from "../oci/index.ts";

export interface Scratch extends Disposable {
  path: string;
}

export function scratch(name: string): Scratch {
  const path = mkdtempSync(join(tmpdir(), `jubako-containerd-${name}-`));
  return {
    path,
    [Symbol.dispose]: () => {
      // dockerd leaves mounts behind: its data root on itself, network namespaces.
      for (const place of readFileSync("/proc/self/mounts", "utf8").split("\n").reverse()) {
        const target = place.split(" ")[1];
        if (target?.startsWith(`${path}/`)) spawnSync("umount", ["-l", target]);
      }
      rmSync(path, { recursive: true, force: true });
    },
  };
}

/** Every program of this name on PATH, first first. */
export function programs(name: string): string[] {
  return (process.env.PATH ?? "")
    .split(":")
    .map((directory) => join(directory, name))
    .filter((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    })
    .filter((path, i, all) => all.findIndex((other) => realpathSync(other) === realpathSync(path)) === i);
}

export const busybox = ["/bin/busybox", "/usr/bin/busybox"].find((path) => existsSync(path));

/** A layer with busybox and links for some applets. */
export function busyboxLayer(): Buffer {
  const data = readFileSync(busybox!);
  const directories = ["bin", "etc", "tmp", "proc", "sys", "dev"].map((name) => ({ header: tarEntry(name, "directory") }));
  const links = ["sh", "true", "sleep", "echo", "cat", "ls", "sync"].map((name) => ({
    header: tarEntry(`bin/${name}`, "symlink", { linkname: "busybox" }),
  }));
  const passwd = Buffer.from("root:x:0:0:root:/:/bin/sh\n");
  return tarOf([
    ...directories,
    { header: tarEntry("bin/busybox", "file", { mode: 0o755 }), data },
    ...links,
    { header: tarEntry("etc/passwd", "file"), data: passwd },
  ]);
}

export interface TestImage {
  /** An OCI layout as a tar. */
  archive: Buffer;
  manifest: { digest: string; size: number; bytes: Buffer };
  config: { digest: string; size: number; bytes: Buffer };
  layers: { digest: string; size: number; bytes: Buffer }[];
}

/** An image of one layer. */
export function testImage(name: string, layer: Buffer = busyboxLayer()): TestImage {
  const blob = (bytes: Buffer) => ({ digest: digestOf(bytes), size: bytes.length, bytes });
  const layers = [blob(layer)];
  const config = blob(
    Buffer.from(
      JSON.stringify({
        architecture: process.arch === "arm64" ? "arm64" : "amd64",
        os: "linux",
        config: { Cmd: ["/bin/sh"], Env: ["PATH=/bin"] },
        rootfs: { type: "layers", diff_ids: layers.map(({ digest }) => digest) },
      }),
    ),
  );
  const descriptor = (mediaType: string, { digest, size }: { digest: string; size: number }) => ({ mediaType, digest, size });
  const manifest = blob(
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MEDIA.ociManifest,
        config: descriptor(MEDIA.ociConfig, config),
        layers: layers.map((each) => descriptor(MEDIA.ociLayer, each)),
      }),
    ),
  );
  const annotations = { "io.containerd.image.name": name };
  const index = { schemaVersion: 2, manifests: [{ ...descriptor(MEDIA.ociManifest, manifest), annotations }] };
  const files: [string, Buffer][] = [
    ["oci-layout", Buffer.from('{"imageLayoutVersion":"1.0.0"}')],
    ["index.json", Buffer.from(JSON.stringify(index))],
    ...[config, manifest, ...layers].map(({ digest, bytes }): [string, Buffer] => [`blobs/sha256/${hexOf(digest)}`, bytes]),
  ];
  const parts = files.flatMap(([file, data]) => [tarHeader(tarEntry(file, "file", { size: data.length })), data, tarPadding(data.length)]);
  return { archive: Buffer.concat([...parts, TAR_END]), manifest, config, layers };
}

export interface ManagerProcess {
  address: string;
  pid: number;
  /** What it logged. */
  log(): string;
  kill(signal: NodeJS.Signals): Promise<void>;
}

/** jubako-containerd on directories below `root`; resolves when it answers. */
export async function startManager(root: string): Promise<ManagerProcess> {
  const address = join(root, "c.sock");
  const args = ["-a", address, "--root", join(root, "root"), "--state", join(root, "state"), "-l", "debug"];
  const child = spawn(process.execPath, [join(import.meta.dirname, "../main.ts"), "jubako-containerd", ...args], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  await new Promise<void>((resolve, reject) => {
    child.stderr.on("data", (data: Buffer) => {
      log += data;
      if (log.includes("containerd API served")) resolve();
    });
    child.on("exit", () => reject(new Error(`the manager ended: ${log}`)));
  });
  return {
    address,
    pid: child.pid!,
    log: () => log,
    kill: (signal) =>
      new Promise((resolve) => {
        if (child.exitCode !== null || child.signalCode !== null) return resolve();
        child.on("exit", () => resolve());
        child.kill(signal);
      }),
  };
}

export interface Outcome {
  status: number;
  stdout: string;
  stderr: string;
}

export function run(file: string, args: string[], options: { timeout?: number; env?: Record<string, string> } = {}): Promise<Outcome> {
  return new Promise((resolve) => {
    execFile(
      file,
      args,
      { timeout: options.timeout ?? 20_000, env: { ...process.env, ...options.env }, maxBuffer: 64 << 20 },
      (error, stdout, stderr) => resolve({ status: error ? (typeof error.code === "number" ? error.code : 255) : 0, stdout, stderr }),
    );
  });
}

/** Polls until it holds, for at most `ms`. */
export async function until(what: () => boolean | Promise<boolean>, ms = 5000): Promise<boolean> {
  for (const end = Date.now() + ms; Date.now() < end; ) {
    if (await what()) return true;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return false;
}
