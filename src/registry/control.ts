// How `jubako-registry garbage-collect` reaches the process that serves the same root: HTTP on a unix socket beside the lock. Only one process may
// change a root, so the collection runs there. The socket is named through /proc/self/fd, as its path may be longer than a socket's may be (108 bytes).
import { chmodSync, closeSync, openSync, rmSync } from "node:fs";
import { createServer, request } from "node:http";
import { join } from "node:path";
import { messageOf, unavailable } from "../lib/errors.ts";

const NAME = "control.sock";

export interface CollectRequest {
  dryRun: boolean;
  deleteUntagged: boolean;
}

/** Serves the socket in `dir`; each line that `run` reports is sent at once. */
export async function serveControl(
  dir: string,
  run: (wanted: CollectRequest, report: (line: string) => void) => Promise<void>,
): Promise<{ close(): Promise<void> }> {
  rmSync(join(dir, NAME), { force: true });
  const server = createServer((incoming, response) => {
    const url = new URL(incoming.url ?? "/", "http://control");
    if (incoming.method !== "POST" || url.pathname !== "/garbage-collect") {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { "content-type": "text/plain" });
    const wanted = { dryRun: url.searchParams.has("dryRun"), deleteUntagged: url.searchParams.has("deleteUntagged") };
    run(wanted, (line) => void response.write(`${line}\n`)).then(
      () => response.end("ok\n"),
      (error) => response.end(`error: ${messageOf(error)}\n`),
    );
  });
  const fd = openSync(dir, "r");
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ path: `/proc/self/fd/${fd}/${NAME}` }, resolve);
    });
  } finally {
    closeSync(fd);
  }
  chmodSync(join(dir, NAME), 0o600);
  return {
    async close() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
      rmSync(join(dir, NAME), { force: true });
    },
  };
}

/** Asks the serving process to collect; every line goes to `report`. */
export async function askControl(dir: string, wanted: CollectRequest, report: (line: string) => void): Promise<void> {
  const fd = openSync(dir, "r");
  try {
    const query = new URLSearchParams({
      ...(wanted.dryRun ? { dryRun: "1" } : {}),
      ...(wanted.deleteUntagged ? { deleteUntagged: "1" } : {}),
    });
    let text = "";
    let last = "";
    const lines = (end: boolean) => {
      const parts = text.split("\n");
      text = parts.pop() ?? "";
      if (end && text) parts.push(text);
      for (const line of parts) {
        if (last) report(last);
        last = line;
      }
    };
    await new Promise<void>((resolve, reject) => {
      const asked = request(
        { socketPath: `/proc/self/fd/${fd}/${NAME}`, method: "POST", path: `/garbage-collect?${query}` },
        (response) => {
          response.setEncoding("utf8");
          response.on("data", (piece: string) => {
            text += piece;
            lines(false);
          });
          response.on("end", resolve);
          response.on("error", reject);
        },
      );
      asked.on("error", reject);
      asked.end();
    });
    lines(true);
    if (last !== "ok") throw unavailable(last.startsWith("error: ") ? last.slice(7) : "the serving process ended before it was done");
  } finally {
    closeSync(fd);
  }
}
