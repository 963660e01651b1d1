// A whole engine on temporary directories, over its API: what containers answer, and what survives a kill -9.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, symlinkSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ContainerInspectResponse, ContainerSummary } from "../../api/types.ts";

const busybox = ["/bin/busybox", "/usr/bin/busybox"].find((path) => existsSync(path));
const possible = process.getuid?.() === 0 && busybox !== undefined;
if (!possible) console.log("skip: containers need root and busybox");

const directory = mkdtempSync(join(tmpdir(), "jubako-core-containers-"));
const socket = join(directory, "docker.sock");
let engine: ChildProcess | undefined;

interface Reply {
  status: number;
  body: unknown;
}

async function api(method: string, path: string, body?: unknown): Promise<Reply> {
  const response = await fetch(`http://engine${path}`, {
    method,
    unix: socket,
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } }),
  });
  const text = await response.text();
  return { status: response.status, body: text === "" ? undefined : (JSON.parse(text.trim().split("\n").at(-1)!) as unknown) };
}

const message = (reply: Reply) => (reply.body as { message: string }).message;

async function create(name: string, cmd: string[], host: object = {}, config: object = {}): Promise<string> {
  const reply = await api("POST", `/containers/create?name=${name}`, {
    Image: "box",
    Cmd: cmd,
    HostConfig: { NetworkMode: "none", ...host },
    ...config,
  });
  if (reply.status !== 201) throw new Error(JSON.stringify(reply));
  return (reply.body as { Id: string }).Id;
}

async function run(name: string, cmd: string[], host: object = {}, config: object = {}): Promise<string> {
  const id = await create(name, cmd, host, config);
  const reply = await api("POST", `/containers/${id}/start`);
  if (reply.status !== 204) throw new Error(JSON.stringify(reply));
  return id;
}

async function inspect(ref: string): Promise<Required<ContainerInspectResponse>> {
  return (await api("GET", `/containers/${ref}/json`)).body as Required<ContainerInspectResponse>;
}

const wait = async (ref: string) => ((await api("POST", `/containers/${ref}/wait`)).body as { StatusCode: number }).StatusCode;
const remove = (ref: string) => api("DELETE", `/containers/${ref}?force=1`);

async function startEngine(): Promise<void> {
  const main = join(import.meta.dirname, "../../main.ts");
  const flags = ["-H", `unix://${socket}`, "--data-root", `${directory}/root`, "--exec-root", `${directory}/exec`, "--bridge", "none"];
  engine = spawn(process.execPath, [main, "jubakod", ...flags, "--shutdown-timeout", "1"], { stdio: ["ignore", "ignore", "inherit"] });
  for (let tries = 0; tries < 200; tries++) {
    try {
      if ((await fetch("http://engine/_ping", { unix: socket })).ok) return;
    } catch {
      await Bun.sleep(25);
    }
  }
  throw new Error("the engine does not answer");
}

async function endEngine(signal: NodeJS.Signals): Promise<void> {
  const ended = new Promise((resolve) => engine!.on("exit", resolve));
  engine!.kill(signal);
  await ended;
}

async function importImage(): Promise<void> {
  const root = join(directory, "image");
  mkdirSync(join(root, "bin"), { recursive: true });
  mkdirSync(join(root, "etc"));
  await copyFile(busybox!, join(root, "bin/busybox"));
  for (const applet of ["sh", "true", "false", "sleep", "echo", "kill", "id"]) symlinkSync("busybox", join(root, "bin", applet));
  await Bun.write(join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nwww:x:33:33::/srv:/bin/sh\n");
  const tar = spawnSync("tar", ["-C", root, "-c", "."], { maxBuffer: 64 << 20 }).stdout;
  const query = new URLSearchParams({ fromSrc: "-", repo: "box", changes: 'CMD ["sh"]' });
  query.append("changes", "ENV FROM_IMAGE=1");
  const response = await fetch(`http://engine/images/create?${query}`, { method: "POST", unix: socket, body: tar });
  if (!response.ok || (await response.text()).includes("errorDetail")) throw new Error("the image could not be imported");
}

describe.skipIf(!possible)("containers", () => {
  beforeAll(async () => {
    await startEngine();
    await importImage();
  });
  afterAll(async () => {
    await endEngine("SIGTERM");
    rmSync(directory, { recursive: true, force: true });
  });

  test("from created to removed", async () => {
    const id = await create("life", ["sleep", "1000"]);
    expect((await inspect("life")).State).toMatchObject({ Status: "created", Running: false, Pid: 0, StartedAt: "0001-01-01T00:00:00Z" });
    expect((await api("POST", "/containers/life/start")).status).toBe(204);
    expect((await api("POST", "/containers/life/start")).status).toBe(304);
    const { State, Config, HostConfig, Name } = await inspect(id.slice(0, 12));
    expect(State).toMatchObject({ Status: "running", Running: true, ExitCode: 0, Error: "" });
    expect(Config.Env).toContain("FROM_IMAGE=1");
    expect(HostConfig).toMatchObject({
      IpcMode: "private",
      ShmSize: 67108864,
      RestartPolicy: { Name: "no", MaximumRetryCount: 0 },
      Memory: 0,
    });
    expect(Name).toBe("/life");
    await Bun.sleep(50);
    expect(readlinkSync(`${directory}/root/containers/${id}/rootfs`)).toBe(`/proc/${State.Pid}/root`);
    const refused = await api("DELETE", "/containers/life");
    expect([refused.status, message(refused)]).toEqual([
      409,
      'cannot remove container "/life": container is running: stop the container before removing or force remove',
    ]);
    expect((await api("POST", "/containers/life/stop?t=0")).status).toBe(204);
    expect((await api("POST", "/containers/life/stop")).status).toBe(304);
    expect((await inspect("life")).State).toMatchObject({ Status: "exited", ExitCode: 137 });
    expect((await api("DELETE", "/containers/life")).status).toBe(204);
    expect(message(await api("GET", "/containers/life/json"))).toBe("No such container: life");
  });

  test("names and settings that can't be are refused with Docker's sentences", async () => {
    const id = await create("taken", ["true"]);
    const attempt = async (query: string, body: object) => {
      const reply = await api("POST", `/containers/create${query}`, body);
      return [reply.status, message(reply)];
    };
    const box = { Image: "box" };
    expect(await attempt("?name=taken", box)).toEqual([
      409,
      `Conflict. The container name "/taken" is already in use by container "${id}". You have to remove (or rename) that container to be able to reuse that name.`,
    ]);
    expect(await attempt("?name=-x", box)).toEqual([400, "Invalid container name (-x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"]);
    expect(await attempt("", { Image: "nothere" })).toEqual([404, "No such image: nothere:latest"]);
    expect(await attempt("", { ...box, HostConfig: { Memory: 1 } })).toEqual([400, "Minimum memory limit allowed is 6MB"]);
    expect(await attempt("", { ...box, HostConfig: { CapAdd: ["X"] } })).toEqual([400, 'invalid CapAdd: unknown capability: "CAP_X"']);
    expect(await attempt("", { ...box, HostConfig: { Privileged: "yes" } })).toEqual([
      400,
      "invalid JSON: HostConfig.Privileged has a value of the wrong type",
    ]);
    expect((await attempt("", { ...box, HostConfig: { RestartPolicy: { Name: "sometimes" } } }))[1]).toStartWith("invalid restart policy");
    await remove("taken");
  });

  test("exit statuses, and who waits for them", async () => {
    const id = await create("three", ["sh", "-c", "exit 3"]);
    const next = api("POST", `/containers/${id}/wait?condition=next-exit`);
    await api("POST", `/containers/${id}/start`);
    expect((await next).body).toEqual({ StatusCode: 3 });
    expect(await wait(id)).toBe(3);
    await remove(id);

    const gone = await create("gone", ["sh", "-c", "exit 4"], { AutoRemove: true });
    const removed = api("POST", `/containers/${gone}/wait?condition=removed`);
    await api("POST", `/containers/${gone}/start`);
    expect((await removed).body).toEqual({ StatusCode: 4 });
    expect((await api("GET", `/containers/${gone}/json`)).status).toBe(404);
  });

  test("commands that can't be run", async () => {
    for (const [command, code, text] of [
      ["nowhere", 127, "executable file not found"],
      ["/etc", 126, "permission denied"],
    ] as const) {
      const id = await create("cannot", [command]);
      const reply = await api("POST", `/containers/${id}/start`);
      expect(reply.status).toBe(400);
      expect(message(reply)).toContain(text);
      expect((await inspect(id)).State).toMatchObject({ Status: "created", ExitCode: code });
      await remove(id);
    }
  });

  test("pause, kill, rename, update", async () => {
    const id = await run("before", ["sleep", "1000"]);
    expect((await api("POST", `/containers/${id}/pause`)).status).toBe(204);
    expect((await inspect(id)).State).toMatchObject({ Status: "paused", Paused: true, Running: true });
    expect((await api("POST", `/containers/${id}/pause`)).status).toBe(409);
    expect((await api("POST", `/containers/${id}/unpause`)).status).toBe(204);
    expect((await api("POST", `/containers/${id}/rename?name=after`)).status).toBe(204);
    expect((await inspect("after")).Name).toBe("/after");
    expect((await api("POST", `/containers/after/update`, { Memory: 64 << 20, MemorySwap: -1 })).status).toBe(200);
    expect((await inspect("after")).HostConfig.Memory).toBe(64 << 20);
    expect((await api("POST", "/containers/after/kill?signal=nonsense")).status).toBe(400);
    expect((await api("POST", "/containers/after/kill")).status).toBe(204);
    const again = await api("POST", "/containers/after/kill");
    expect([again.status, message(again)]).toEqual([409, `cannot kill container: after: container ${id} is not running`]);
    await remove(id);
  });

  test("restart policies", async () => {
    const id = await run("again", ["false"], { RestartPolicy: { Name: "on-failure", MaximumRetryCount: 2 } });
    for (let tries = 0; tries < 100 && (await inspect(id)).State.Status !== "exited"; tries++) await Bun.sleep(20);
    expect(await inspect(id)).toMatchObject({ RestartCount: 2, State: { Status: "exited", ExitCode: 1 } });
    await remove(id);
    const always = await run("always", ["true"], { RestartPolicy: { Name: "always" } });
    await Bun.sleep(250);
    expect((await inspect(always)).RestartCount).toBeGreaterThan(0);
    await api("POST", `/containers/${always}/stop?t=0`);
    expect((await inspect(always)).State.Status).toBe("exited");
    await remove(always);
  });

  test("lists by filters", async () => {
    const a = await create("list-a", ["true"], {}, { Labels: { tier: "one" } });
    const b = await run("list-b", ["sleep", "1000"], {}, { Labels: { tier: "two" } });
    const list = async (filters: object, query = "all=1") => {
      const reply = await api("GET", `/containers/json?${query}&filters=${encodeURIComponent(JSON.stringify(filters))}`);
      return (reply.body as ContainerSummary[]).map((each) => each.Names![0]);
    };
    expect(await list({ name: ["list-"] })).toEqual(["/list-b", "/list-a"]);
    expect(await list({ label: ["tier=one"] })).toEqual(["/list-a"]);
    expect(await list({ status: ["running"] }, "")).toEqual(["/list-b"]);
    expect(await list({ ancestor: ["box"], before: ["list-b"] })).toEqual(["/list-a"]);
    expect(await list({ id: [a.slice(0, 10)] })).toEqual(["/list-a"]);
    expect((await api("GET", `/containers/json?filters=${encodeURIComponent('{"nonsense":["1"]}')}`)).status).toBe(400);
    await Promise.all([remove(a), remove(b)]);
  });

  test("a killed engine finds its containers again and leaves nothing half-made", async () => {
    const lives = await run("lives", ["sleep", "1000"]);
    const { Pid } = (await inspect(lives)).State;
    const ends = await run("ends", ["sh", "-c", "sleep 0.3; exit 9"]);
    const leaves = await run("leaves", ["sh", "-c", "sleep 0.3; exit 9"], { AutoRemove: true });
    const half = Promise.all(Array.from({ length: 6 }, (_, index) => run(`half-${index}`, ["sleep", "1000"]).catch(() => {})));
    await Bun.sleep(30);
    await endEngine("SIGKILL");
    await half;
    await Bun.sleep(400);
    await startEngine();
    expect((await inspect(lives)).State).toMatchObject({ Status: "running", Pid });
    expect((await inspect(ends)).State).toMatchObject({ Status: "exited", ExitCode: 9 });
    expect((await api("GET", `/containers/${leaves}/json`)).status).toBe(404);
    const all = (await api("GET", "/containers/json?all=1")).body as ContainerSummary[];
    await Promise.all(all.map(({ Id }) => remove(Id!)));
    const places = ["root/containers", "exec/io", "exec/containerd/io.containerd.runtime.v2.task/moby"];
    const left = () => places.flatMap((place) => readdirSync(join(directory, place)).map((name) => join(place, name)));
    for (let tries = 0; tries < 100 && left().length > 0; tries++) await Bun.sleep(50);
    expect(left()).toEqual([]);
  }, 20_000);
});
