// The Engine API's contract: answers of a real engine are checked by the compiler against the types of src/api/types.ts, which are those of Docker's
// OpenAPI description: every field known, every value of its type, at every depth. And the fields that clients rely on are there.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lacks, root, startEngine, type TestEngine } from "./support/engine.ts";

let engine: TestEngine;
let container = "";

/** Every answer that was read, with its type: one run of the compiler checks them all. */
const answers: { what: string; type: string; text: string }[] = [];

interface Answer {
  status: number;
  text: string;
}

/** `lines`: answers without end are read up to that many lines. */
function call(method: string, path: string, body?: unknown, lines?: number): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(
      { socketPath: `${engine.dir}/docker.sock`, method, path: `/v1.56${path}`, headers: { "Content-Type": "application/json" } },
      (received) => {
        let text = "";
        const done = () => resolve({ status: received.statusCode!, text });
        received.setEncoding("utf8");
        received.on("data", (chunk: string) => {
          text += chunk;
          if (lines === undefined || text.split("\n").length <= lines) return;
          done();
          sent.destroy();
        });
        received.on("end", done);
      },
    );
    sent.on("error", reject);
    sent.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

function has(value: unknown, fields: string): void {
  expect(fields.split(" ").filter((field) => !(field in (value as object)))).toEqual([]);
}

/** Calls, notes the answer for the compiler, and gives it. `fields`: what must be there (in the first element of a list). */
async function get<T = Record<string, unknown>>(type: string, path: string, fields: string): Promise<T> {
  const { status, text } = await call("GET", path);
  expect({ path, status, text: status === 200 ? "" : text }).toEqual({ path, status: 200, text: "" });
  answers.push({ what: `GET ${path}`, type, text });
  const value = JSON.parse(text);
  has(Array.isArray(value) ? value[0] : value, fields);
  return value;
}

async function post<T = Record<string, unknown>>(type: string, path: string, body: unknown, expected: number, fields: string): Promise<T> {
  const { status, text } = await call("POST", path, body);
  expect({ path, status, text: status === expected ? "" : text }).toEqual({ path, status: expected, text: "" });
  answers.push({ what: `POST ${path}`, type, text });
  const value = JSON.parse(text);
  has(value, fields);
  return value;
}

describe.skipIf(lacks("docker"))("contract", () => {
  beforeAll(async () => {
    engine = await startEngine();
  }, 30_000);
  afterAll(async () => {
    await engine?.stop();
  }, 30_000);

  test("create, start", async () => {
    const body = {
      Image: "busybox",
      Cmd: ["sh", "-c", "echo hello; exec sleep 1000"],
      StopSignal: "KILL",
      Labels: { purpose: "contract" },
      ExposedPorts: { "80/tcp": {} },
      Healthcheck: { Test: ["CMD", "true"], Interval: 1e9 },
      HostConfig: {
        Binds: ["contract-volume:/data"],
        Mounts: [{ Type: "tmpfs", Target: "/scratch" }],
        PortBindings: { "80/tcp": [{ HostIp: "127.0.0.1", HostPort: "" }] },
        Memory: 64 << 20,
      },
    };
    container = (await post<{ Id: string }>("ContainerCreateResponse", "/containers/create?name=subject", body, 201, "Id Warnings")).Id;
    expect(container).toMatch(/^[0-9a-f]{64}$/);
    expect((await call("POST", `/containers/${container}/start`)).status).toBe(204);
    expect((await call("POST", `/containers/${container}/start`)).status).toBe(304);
  });

  test("containers", async () => {
    await get(
      "ContainerSummary[]",
      "/containers/json?all=1&size=1",
      "Id Names Image ImageID Command Created Ports Labels State Status HostConfig NetworkSettings Mounts SizeRw SizeRootFs",
    );
    const inspected = await get<{ State: object; HostConfig: object; Config: object; NetworkSettings: { Networks: { bridge: object } } }>(
      "ContainerInspectResponse",
      `/containers/${container}/json`,
      "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver Platform MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig Mounts Config NetworkSettings",
    );
    has(inspected.State, "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt Health");
    has(
      inspected.Config,
      "Hostname Domainname User AttachStdin AttachStdout AttachStderr Tty OpenStdin StdinOnce Env Cmd Image Volumes WorkingDir Entrypoint Labels",
    );
    has(
      inspected.HostConfig,
      "Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver VolumesFrom CapAdd CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd IpcMode Cgroup Links OomScoreAdj PidMode Privileged PublishAllPorts ReadonlyRootfs SecurityOpt UTSMode UsernsMode ShmSize Runtime Isolation CpuShares Memory NanoCpus CgroupParent CpuPeriod CpuQuota CpusetCpus Devices MemorySwap PidsLimit Ulimits MaskedPaths ReadonlyPaths",
    );
    has(inspected.NetworkSettings, "SandboxID SandboxKey Ports Networks");
    has(
      inspected.NetworkSettings.Networks.bridge,
      "IPAMConfig Links Aliases DriverOpts NetworkID EndpointID Gateway IPAddress MacAddress IPPrefixLen IPv6Gateway GlobalIPv6Address GlobalIPv6PrefixLen DNSNames",
    );
    await get("ContainerTopResponse", `/containers/${container}/top`, "Titles Processes");
    await get("FilesystemChange[]", `/containers/${container}/changes`, "Path Kind");
    await get(
      "ContainerStatsResponse",
      `/containers/${container}/stats?stream=0`,
      "id name read preread cpu_stats precpu_stats memory_stats pids_stats blkio_stats networks num_procs storage_stats",
    );
    await post("ContainerUpdateResponse", `/containers/${container}/update`, { RestartPolicy: { Name: "on-failure" } }, 200, "Warnings");
    expect((await call("POST", `/containers/${container}/rename?name=subject2`)).status).toBe(204);
    expect((await call("POST", `/containers/${container}/pause`)).status).toBe(204);
    expect((await call("POST", `/containers/${container}/unpause`)).status).toBe(204);
  });

  test("exec", async () => {
    const { Id } = await post<{ Id: string }>(
      "IDResponse",
      `/containers/${container}/exec`,
      { Cmd: ["true"], AttachStdout: true },
      201,
      "Id",
    );
    expect((await call("POST", `/exec/${Id}/start`, { Detach: true })).status).toBe(200);
    const value = JSON.parse((await call("GET", `/exec/${Id}/json`)).text);
    has(value, "ID Running ExitCode ProcessConfig OpenStdin OpenStderr OpenStdout CanRemove ContainerID DetachKeys Pid");
    has(value.ProcessConfig, "tty entrypoint arguments privileged");
  });

  test("images", async () => {
    await get("ImageSummary[]", "/images/json", "Id ParentId RepoTags RepoDigests Created Size SharedSize Labels Containers");
    const image = await get<{ Config: object; RootFS: object }>(
      "ImageInspect",
      "/images/busybox/json",
      "Id RepoTags RepoDigests Created Architecture Os Size GraphDriver RootFS Metadata Config",
    );
    has(image.RootFS, "Type Layers");
    await get("ImageHistoryResponseItem[]", "/images/busybox/history", "Id Created CreatedBy Tags Size Comment");
    expect((await call("POST", "/images/busybox/tag?repo=other&tag=1")).status).toBe(201);
    const { status, text } = await call("DELETE", "/images/other:1");
    expect(status).toBe(200);
    answers.push({ what: "DELETE /images/other:1", type: "ImageDeleteResponseItem[]", text });
  });

  test("networks", async () => {
    const fields =
      "Name Id Created Scope Driver EnableIPv4 EnableIPv6 IPAM Internal Attachable Ingress ConfigFrom ConfigOnly Options Labels";
    await get("(Network & Connected)[]", "/networks", fields);
    const bridge = await get<{ Containers: Record<string, object> }>("Network & Connected", "/networks/bridge", `${fields} Containers`);
    has(bridge.Containers[container], "Name EndpointID MacAddress IPv4Address IPv6Address");
    await post("NetworkCreateResponse", "/networks/create", { Name: "contract", Internal: true }, 201, "Id Warning");
    expect((await call("POST", "/networks/contract/connect", { Container: container })).status).toBe(200);
    expect((await call("POST", "/networks/contract/disconnect", { Container: container })).status).toBe(200);
    expect((await call("DELETE", "/networks/contract")).status).toBe(204);
    await post("{ NetworksDeleted: string[] }", "/networks/prune", undefined, 200, "NetworksDeleted");
  });

  test("volumes", async () => {
    const fields = "CreatedAt Driver Labels Mountpoint Name Options Scope";
    const listed = await get<{ Volumes: object[] }>("VolumeListResponse", "/volumes", "Volumes Warnings");
    has(listed.Volumes[0], fields);
    await get("Volume", "/volumes/contract-volume", fields);
    await post("Volume", "/volumes/create", { Name: "contract-2", Labels: { a: "b" } }, 201, fields);
    expect((await call("DELETE", "/volumes/contract-volume")).status).toBe(409);
    expect((await call("DELETE", "/volumes/contract-2")).status).toBe(204);
    await post("{ VolumesDeleted: string[]; SpaceReclaimed: number }", "/volumes/prune", undefined, 200, "VolumesDeleted SpaceReclaimed");
  });

  test("system", async () => {
    await get(
      "SystemInfo",
      "/info",
      "ID Containers ContainersRunning ContainersPaused ContainersStopped Images Driver DriverStatus Plugins MemoryLimit SwapLimit CpuCfsPeriod CpuCfsQuota CPUShares CPUSet PidsLimit IPv4Forwarding Debug NFd OomKillDisable NGoroutines SystemTime LoggingDriver CgroupDriver CgroupVersion NEventsListener KernelVersion OperatingSystem OSVersion OSType Architecture IndexServerAddress RegistryConfig NCPU MemTotal GenericResources DockerRootDir HttpProxy HttpsProxy NoProxy Name Labels ExperimentalBuild ServerVersion Runtimes DefaultRuntime Swarm LiveRestoreEnabled Isolation InitBinary ContainerdCommit RuncCommit InitCommit SecurityOptions Warnings CDISpecDirs",
    );
    await get(
      "SystemVersion",
      "/version",
      "Platform Components Version ApiVersion MinAPIVersion GitCommit GoVersion Os Arch KernelVersion BuildTime",
    );
    const df = JSON.parse((await call("GET", "/system/df")).text);
    has(df, "ImageUsage ContainerUsage VolumeUsage BuildCacheUsage");
    has(df.ImageUsage, "ActiveCount TotalCount Reclaimable TotalSize");
    for (const method of ["GET", "HEAD"]) expect((await call(method, "/_ping")).status).toBe(200);
  });

  test("events", async () => {
    expect(await call("GET", "/events?until=0")).toEqual({ status: 200, text: "" });
    const { text } = await call("GET", "/events?since=1", undefined, 5);
    const events = text.split("\n").slice(0, 5);
    answers.push({ what: "GET /events", type: "EventMessage[]", text: `[${events.join(",")}]` });
    for (const event of events) has(JSON.parse(event), "Type Action Actor scope time timeNano");
  });

  test("wait, stop, remove, prune; errors have a message", async () => {
    const waiting = call("POST", `/containers/${container}/wait`);
    expect((await call("POST", `/containers/${container}/stop`)).status).toBe(204);
    expect((await call("POST", `/containers/${container}/stop`)).status).toBe(304);
    const { status, text } = await waiting;
    expect(status).toBe(200);
    answers.push({ what: "POST /containers/ID/wait", type: "ContainerWaitResponse", text });
    expect((await call("DELETE", `/containers/${container}`)).status).toBe(204);
    await post("{ ContainersDeleted: string[]; SpaceReclaimed: number }", "/containers/prune", undefined, 200, "ContainersDeleted");
    await post("{ ImagesDeleted: unknown[]; SpaceReclaimed: number }", "/images/prune", undefined, 200, "ImagesDeleted SpaceReclaimed");
    for (const [method, path, status] of [
      ["GET", "/containers/nosuch/json", 404],
      ["GET", "/images/nosuch/json", 404],
      ["GET", "/networks/nosuch", 404],
      ["GET", "/volumes/nosuch", 404],
      ["GET", "/exec/nosuch/json", 404],
      ["GET", "/containers/json?filters=banana", 400],
      ["POST", "/containers/create", 400],
      ["POST", "/swarm/init", 501],
      ["GET", "/nothing/here", 404],
    ] as const) {
      const answer = await call(method, path);
      expect({ path, status: answer.status }).toEqual({ path, status });
      expect(typeof JSON.parse(answer.text).message).toBe("string");
    }
  });

  test("the compiler finds every answer to be of its type", () => {
    const dir = mkdtempSync(join(tmpdir(), "jubako-contract-"));
    try {
      const names = [...new Set(answers.flatMap(({ type }) => type.match(/^\(?([A-Z]\w+)/)?.[1] ?? []))];
      // where Docker says null for an absent list or map, its description only says that it is optional
      const checks = answers.map(({ what, type, text }, number) => {
        const literal = JSON.stringify(JSON.parse(text), null, 1).replace(/(^|[:[] ?)null(?=,?$)/gm, "$1null!");
        return `// ${what}\nexport const answer${number} = ${literal} satisfies ${type};\n`;
      });
      const imports = `import type { ${names.join(", ")}, EndpointResource, NetworkStatus } from "${join(root, "src/api/types.ts")}";\n`;
      // the description of a network's inspection adds this to that of a network
      const connected =
        "interface Connected { Containers?: Record<string, EndpointResource>; Services?: object; Status?: NetworkStatus }\n";
      writeFileSync(join(dir, "answers.ts"), imports + connected + checks.join(""));
      const flags = ["--ignoreConfig", "--noEmit", "--strict", "--skipLibCheck", "--allowImportingTsExtensions", "--module", "preserve"];
      const found = spawnSync(join(root, "node_modules/.bin/tsc"), [...flags, "--types", "", "answers.ts"], { cwd: dir, encoding: "utf8" });
      expect(found.stdout).toBe("");
      expect(found.status).toBe(0);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  }, 30_000);
});
