// A web server on loopback with files and git repositories below a directory: /files/…, /NAME.git for the repository NAME.
import { statSync } from "node:fs";
import { join } from "node:path";
import { gitAnswer } from "../../src/build/harness-git.ts";

export interface Remote {
  /** "http://127.0.0.1:PORT" */
  address: string;
  stop(): void;
}

export function serveRemote(dir: string): Remote {
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    async fetch(request) {
      const { pathname } = new URL(request.url);
      const git = /^\/([a-z]+)\.git(\/.*)$/.exec(pathname);
      if (git) return gitAnswer(dir, `/${git[1]}/.git${git[2]}`, request);
      const path = join(dir, pathname);
      const stat = statSync(path, { throwIfNoEntry: false });
      if (!stat?.isFile()) return new Response("", { status: 404 });
      return new Response(Bun.file(path), { headers: { "last-modified": stat.mtime.toUTCString() } });
    },
  });
  return { address: `http://127.0.0.1:${server.port}`, stop: () => server.stop(true) };
}
