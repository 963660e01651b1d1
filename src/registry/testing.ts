// What the tests of this folder share: a registry on a port of its own, and small images to put there.
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { digestOf, MEDIA } from "../oci/index.ts";
import { type Config, defaults } from "./config.ts";
import { createRegistry, type Registry } from "./registry.ts";
import type { Log } from "./server.ts";

export interface Served {
  registry: Registry;
  root: string;
  base: string;
  /** A request; `path` begins after the address. Redirects are not followed. */
  ask(method: string, path: string, body?: Uint8Array | string, headers?: Record<string, string>): Promise<Response>;
  logged: string[];
  /** Ends the server but keeps the directory. */
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function serveRegistry(changes: Partial<Config> = {}): Promise<Served> {
  const own = changes.root === undefined;
  const root = changes.root ?? mkdtempSync(join(tmpdir(), "jubako-registry-test-"));
  const logged: string[] = [];
  const log: Log = (level, message) => void logged.push(`${level}: ${message}`);
  const registry = await createRegistry({ ...defaults(), address: "127.0.0.1:0", drainMs: 200, ...changes, root }, log);
  const base = `http://${registry.address}`;
  return {
    registry,
    root,
    base,
    logged,
    ask: (method, path, body, headers = {}) =>
      fetch(base + path, {
        method,
        headers,
        redirect: "manual",
        ...(body === undefined ? {} : { body: body as NonNullable<RequestInit["body"]> }),
      }),
    stop: () => registry.close(),
    async [Symbol.asyncDispose]() {
      await registry.close();
      if (own) rmSync(root, { recursive: true, force: true });
    },
  };
}

/** The codes in an error's body. */
export async function codes(response: Response): Promise<string[]> {
  const body = (await response.json()) as { errors: { code: string; message: string }[] };
  return body.errors.map((error) => error.code);
}

/** Uploads a blob whole; answers its digest. */
export async function pushBlob(served: Served, name: string, bytes: Uint8Array | string): Promise<string> {
  const digest = digestOf(bytes);
  const response = await served.ask("POST", `/v2/${name}/blobs/uploads/?digest=${digest}`, bytes, {
    "content-type": "application/octet-stream",
  });
  if (response.status !== 201) throw new Error(`push of a blob: ${response.status} ${await response.text()}`);
  return digest;
}

export interface Pushed {
  digest: string;
  bytes: string;
  config: string;
  layer: string;
}

/** Pushes an image of one layer. */
export async function pushImage(served: Served, name: string, reference: string, layer = "layer", more: object = {}): Promise<Pushed> {
  const config = await pushBlob(served, name, "{}");
  const digest = await pushBlob(served, name, layer);
  const bytes = JSON.stringify({
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    config: { mediaType: MEDIA.ociConfig, digest: config, size: 2 },
    layers: [{ mediaType: MEDIA.ociLayer, digest, size: Buffer.byteLength(layer) }],
    ...more,
  });
  const at = reference === "@" ? digestOf(bytes) : reference;
  const response = await served.ask("PUT", `/v2/${name}/manifests/${at}`, bytes, { "content-type": MEDIA.ociManifest });
  if (response.status !== 201) throw new Error(`push of a manifest: ${response.status} ${await response.text()}`);
  return { digest: digestOf(bytes), bytes, config, layer: digest };
}

/** Sends bytes over a connection of its own, as they are, and answers what came back until the end (or for so long). */
export function raw(served: Served, text: string | Uint8Array, options: { hangUpAfterMs?: number } = {}): Promise<string> {
  const [host, port] = served.registry.address.split(":");
  return new Promise((resolve) => {
    let back = "";
    const socket = connect(Number(port), host, () => {
      socket.write(text);
      if (options.hangUpAfterMs !== undefined) setTimeout(() => socket.destroy(), options.hangUpAfterMs);
    });
    socket.on("data", (piece) => {
      back += piece.toString("latin1");
    });
    socket.on("error", () => {});
    socket.on("close", () => resolve(back));
    socket.setTimeout(3000, () => socket.destroy());
  });
}
