// /containers/{id}/archive and /export: files into and out of a container, whether it runs or not.
import { posix } from "node:path";
import { invalidArgument, permissionDenied } from "../../lib/errors.ts";
import { close, O_DIRECTORY, O_PATH, O_RDONLY } from "../../linux/index.ts";
import { files } from "../../oci/index.ts";
import { span } from "../../trace/index.ts";
import type { ContainerRecord, Engine } from "../context.ts";
import { lookUpUser } from "../exec/process.ts";
import { type Answer, type Call, flag, type Route } from "../route.ts";
import { packPath, packTree } from "./pack.ts";
import { cleanPath, isDirectory, openInside, type PathStat, statPath } from "./paths.ts";
import { mountOf, openForCopy } from "./root.ts";
import { unpackInto } from "./unpack.ts";

const TAR = "application/x-tar";
/** Below the root, in the archive of the root. */
const APART = ["./proc", "./sys", "./dev"];

function statHeader(stat: PathStat): Record<string, string> {
  return { "X-Docker-Container-Path-Stat": Buffer.from(JSON.stringify(stat)).toString("base64") };
}

function wantedPath(call: Call): string {
  const path = call.query.get("path");
  if (!path) throw invalidArgument("missing path parameter: the path in the container is needed");
  if (path.includes("\0")) throw invalidArgument("invalid path: it holds a NUL byte");
  return path;
}

/** Frees what a stream holds when it ends, however it ends; also where it never began, when a generator's `finally` would not run. */
function thenClose(stream: AsyncIterable<Uint8Array>, ...free: (() => unknown)[]): AsyncIterable<Uint8Array> {
  return {
    [Symbol.asyncIterator]() {
      const inner = stream[Symbol.asyncIterator]();
      let over = false;
      const end = async () => {
        if (over) return;
        over = true;
        await inner.return?.();
        for (const each of free) await each();
      };
      return {
        async next() {
          try {
            const step = await inner.next();
            if (step.done) await end();
            return step;
          } catch (error) {
            await end();
            throw error;
          }
        },
        async return(value) {
          await end();
          return { done: true as const, value };
        },
      };
    },
  };
}

const latin1 = (text: string) => Buffer.from(text).toString("latin1");

export function routes(engine: Engine): Route[] {
  const publish = (record: ContainerRecord, action: string) =>
    engine.events.publish("container", action, record.id, engine.events.containerAttributes(record));

  async function head(call: Call): Promise<Answer> {
    const record = engine.containers.get(call.params.id!);
    const path = wantedPath(call);
    const root = await openForCopy(engine, record, path);
    try {
      const { answer } = statPath(root.fd, root.path, record.name);
      return { status: 200, headers: statHeader({ ...answer, name: posix.basename(cleanPath(path)) || "/" }) };
    } finally {
      await root.close();
    }
  }

  async function get(call: Call): Promise<Answer> {
    const record = engine.containers.get(call.params.id!);
    const path = wantedPath(call);
    const root = await openForCopy(engine, record, path);
    let parent = -1;
    try {
      const { stat, answer } = statPath(root.fd, root.path, record.name);
      const clean = cleanPath(root.path);
      const base = posix.basename(cleanPath(path)) || "/";
      const directory = isDirectory(stat);
      parent = openInside(root.fd, directory ? clean : posix.dirname(clean), O_RDONLY | O_DIRECTORY, record.name);
      const name = directory ? "." : latin1(posix.basename(clean));
      const stream = packPath(parent, name, base === "/" ? "." : latin1(base), { oneFileSystem: false, apart: APART });
      publish(record, "archive-path");
      const free = parent;
      return { type: TAR, stream: thenClose(stream, () => close(free), root.close), headers: statHeader({ ...answer, name: base }) };
    } catch (error) {
      close(parent);
      await root.close();
      throw error;
    }
  }

  async function put(call: Call): Promise<Answer> {
    const record = engine.containers.get(call.params.id!);
    const path = wantedPath(call);
    const mount = mountOf(record.mounts, path);
    if (mount ? mount.RW === false : record.hostConfig.ReadonlyRootfs) {
      throw permissionDenied(mount ? "mounted volume is marked read-only" : "container rootfs is marked read-only");
    }
    const owner = flag(call.query, "copyUIDGID") && record.config.User ? await lookUpUser(engine, record, record.config.User) : undefined;
    const root = await openForCopy(engine, record, path);
    let target = -1;
    try {
      const place = openInside(root.fd, root.path, O_PATH, record.name, path.replace(/\/\.?$/, "") || "/");
      const directory = isDirectory(files.statOf(place));
      close(place);
      if (!directory) throw invalidArgument("extraction point is not a directory");
      target = openInside(root.fd, root.path, O_RDONLY | O_DIRECTORY, record.name);
      await span("unpack archive", { container: record.id, path }, () =>
        unpackInto(target, call.body, {
          noOverwriteDirNonDir: flag(call.query, "noOverwriteDirNonDir"),
          owner: owner ? { uid: owner.uid, gid: owner.gid } : undefined,
        }),
      );
      publish(record, "extract-to-dir");
      return { status: 200 };
    } finally {
      close(target);
      await root.close();
    }
  }

  async function exportTree(call: Call): Promise<Answer> {
    const record = engine.containers.get(call.params.id!);
    const root = await engine.containers.openRoot(record.id);
    let top: number;
    try {
      top = openInside(root.fd, "/", O_RDONLY | O_DIRECTORY, record.name);
    } catch (error) {
      await root.close();
      throw error;
    }
    publish(record, "export");
    return { type: "application/octet-stream", stream: thenClose(packTree(top, { oneFileSystem: true }), () => close(top), root.close) };
  }

  return [
    { method: "HEAD", path: "/containers/{id}/archive", handle: head },
    { method: "GET", path: "/containers/{id}/archive", handle: get },
    { method: "PUT", path: "/containers/{id}/archive", handle: put },
    { method: "GET", path: "/containers/{id}/export", handle: exportTree },
  ];
}
