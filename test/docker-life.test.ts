// A container's life by the real docker CLI: create, start, stop, pause, exec, logs, attach, cp, stats, events, networks, volumes.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { lacks, sh, startEngine, type TestEngine, until } from "./support/engine.ts";

describe.skipIf(lacks("docker"))("a container's life", () => {
  let engine: TestEngine;
  beforeAll(async () => {
    engine = await startEngine();
  });
  afterAll(() => engine?.stop());

  const ok = (...args: string[]): string => {
    const result = engine.docker(...args);
    if (result.status !== 0) throw new Error(`docker ${args.join(" ")}: ${result.status}\n${result.stderr}`);
    return result.stdout;
  };

  test("version and info know the engine", () => {
    expect(ok("version", "--format", "{{.Server.APIVersion}}")).toBe("1.56\n");
    expect(ok("info", "--format", "{{.OSType}} {{.Driver}} {{.CgroupVersion}}")).toMatch(/^linux overlay\S* [12]\n$/);
  });

  test("create, start, stop, restart, rename, rm", () => {
    ok("create", "--name", "life", "busybox", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done");
    expect(ok("inspect", "-f", "{{.State.Status}}", "life")).toBe("created\n");
    ok("start", "life");
    expect(ok("ps", "--format", "{{.Names}} {{.State}}")).toBe("life running\n");
    expect(engine.docker("rm", "life").stderr).toContain("container is running");
    ok("stop", "life");
    expect(ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "life")).toBe("exited 3\n");
    ok("restart", "-t", "1", "life");
    ok("rename", "life", "afterlife");
    expect(engine.docker("inspect", "life").status).toBe(1);
    ok("kill", "-s", "KILL", "afterlife");
    expect(ok("wait", "afterlife")).toBe("137\n");
    ok("rm", "afterlife");
    expect(ok("ps", "-aq")).toBe("");
  });

  test("pause stops the processes, unpause lets them go on", async () => {
    ok("run", "-d", "--name", "still", "busybox", "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > /n; sleep 0.02; done");
    await until("it counts", () => engine.docker("exec", "still", "cat", "/n").stdout.trim() !== "");
    ok("pause", "still");
    expect(ok("ps", "--filter", "status=paused", "--format", "{{.Names}} {{.Status}}")).toContain("(Paused)");
    expect(engine.docker("exec", "still", "true").stderr).toContain("paused");
    ok("unpause", "still");
    expect(ok("exec", "still", "echo", "back")).toBe("back\n");
    ok("rm", "-f", "still");
  });

  test("exec: output, status, user, environment, directory, stdin, detached, unknown command", () => {
    ok("run", "-d", "--name", "host", "busybox", "sleep", "1000");
    expect(engine.docker("exec", "host", "sh", "-c", "echo o; echo e >&2; exit 9")).toEqual({ status: 9, stdout: "o\n", stderr: "e\n" });
    expect(ok("exec", "-u", "nobody", "-w", "/tmp", "-e", "X=1", "host", "sh", "-c", "id -un; pwd; echo $X")).toBe("nobody\n/tmp\n1\n");
    expect(engine.dockerWith({ input: "through" }, "exec", "-i", "host", "cat").stdout).toBe("through");
    expect(engine.docker("exec", "host", "no-such-command").status).toBe(127);
    expect(engine.docker("exec", "host", "/etc").status).toBe(126);
    ok("exec", "-d", "host", "touch", "/detached");
    expect(ok("exec", "host", "sh", "-c", "while [ ! -e /detached ]; do sleep 0.01; done; echo there")).toBe("there\n");
    expect(ok("exec", "-t", "host", "tty")).toMatch(/^\/dev\/pts\/\d+\r\n$/);
    expect(ok("top", "host")).toContain("sleep 1000");
    ok("rm", "-f", "host");
  });

  test("logs: tail, since, timestamps, follow until the end", async () => {
    ok("run", "-d", "--name", "talker", "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done; sleep 0.5; echo last");
    const following = engine.dockerAsync("logs", "-f", "talker");
    expect((await following).stdout).toBe("line 1\nline 2\nline 3\nline 4\nline 5\nlast\n");
    expect(ok("logs", "--tail", "2", "talker")).toBe("line 5\nlast\n");
    expect(ok("logs", "-t", "--tail", "1", "talker")).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z last\n$/);
    expect(ok("logs", "--since", "1h", "talker").split("\n").length).toBe(7);
    expect(ok("logs", "--until", "1h", "talker")).toBe("");
    ok("rm", "talker");
  });

  test("log drivers: local is readable, none is not", () => {
    ok("run", "--name", "local", "--log-driver", "local", "busybox", "echo", "kept");
    expect(ok("logs", "local")).toBe("kept\n");
    ok("run", "--name", "none", "--log-driver", "none", "busybox", "echo", "gone");
    expect(engine.docker("logs", "none").stderr).toContain("configured logging driver does not support reading");
    expect(engine.docker("run", "--log-driver", "nosuch", "busybox", "true").status).toBe(125);
    expect(engine.docker("run", "--log-opt", "max-size=banana", "busybox", "true").status).toBe(125);
    ok("rm", "local", "none");
    engine.docker("container", "prune", "-f");
  });

  test("json-file logs are rotated", () => {
    ok(
      "run",
      "--name",
      "loud",
      "--log-opt",
      "max-size=10k",
      "--log-opt",
      "max-file=2",
      "busybox",
      "sh",
      "-c",
      "i=0; while [ $i -lt 2000 ]; do echo number $i; i=$((i+1)); done",
    );
    const path = ok("inspect", "-f", "{{.LogPath}}", "loud").trim();
    expect(Number(sh(`cat ${path}* | wc -c`).stdout)).toBeLessThan(25_000);
    expect(ok("logs", "--tail", "1", "loud")).toBe("number 1999\n");
    ok("rm", "loud");
  });

  test("attach sees what comes, and its exit", async () => {
    ok("run", "-d", "-i", "--name", "answering", "busybox", "sh", "-c", "read x; echo got $x; exit 5");
    // As with dockerd, the end of the client's input ends its attachment where the container's input stays open.
    const result = sh(`(echo word; sleep 1) | docker -H ${engine.host} attach answering`);
    expect(result).toMatchObject({ status: 5, stdout: "got word\n" });
    ok("rm", "answering");
  });

  test("cp both ways, running and stopped", () => {
    ok("create", "--name", "files", "busybox", "sleep", "100");
    mkdirSync(join(engine.dir, "tree/sub"), { recursive: true });
    writeFileSync(join(engine.dir, "tree/sub/f"), "content\n");
    ok("cp", join(engine.dir, "tree"), "files:/copied");
    ok("start", "files");
    expect(ok("exec", "files", "cat", "/copied/sub/f")).toBe("content\n");
    ok("exec", "files", "sh", "-c", "echo inside > /made; ln -s /made /link");
    ok("cp", "files:/made", join(engine.dir, "out"));
    expect(readFileSync(join(engine.dir, "out"), "utf8")).toBe("inside\n");
    ok("cp", "-L", "files:/link", join(engine.dir, "out2"));
    expect(readFileSync(join(engine.dir, "out2"), "utf8")).toBe("inside\n");
    expect(engine.docker("cp", "files:/nothing", "/tmp/x").stderr).toMatch(
      /Could not find the file \/nothing in container files|No such container:path: files:\/nothing/,
    );
    ok("rm", "-f", "files");
  });

  test("stats, events, system df", () => {
    ok("run", "-d", "--name", "busy", "busybox", "sleep", "100");
    const stats = JSON.parse(ok("stats", "--no-stream", "--format", "{{json .}}", "busy")) as Record<string, string>;
    expect(stats.Name).toBe("busy");
    expect(stats.PIDs).toBe("1");
    ok("rm", "-f", "busy");
    sh("sleep 1.1"); // the client sends --until in whole seconds
    const events = ok("events", "--since", "30s", "--until", "0s", "--filter", "container=busy", "--format", "{{.Action}}")
      .trim()
      .split("\n");
    for (const action of ["create", "start", "kill", "die", "destroy"]) expect(events).toContain(action);
    expect(ok("system", "df")).toMatch(/^TYPE\s+TOTAL\s+ACTIVE\s+SIZE\s+RECLAIMABLE/);
    expect(ok("system", "df", "-v")).toContain("busybox");
  });

  test("images: list, tag, inspect, import, load, rmi", () => {
    expect(ok("images", "--format", "{{.Repository}}:{{.Tag}}")).toContain("busybox:latest");
    ok("tag", "busybox", "other:v1");
    expect(engine.docker("rmi", "other:v1").stdout).toBe("Untagged: other:v1\n");
    const tar = sh(
      `mkdir -p ${engine.dir}/imp/bin && cp /bin/busybox ${engine.dir}/imp/bin/sh && tar -C ${engine.dir}/imp -c . > ${engine.dir}/imp.tar`,
    );
    expect(tar.status).toBe(0);
    ok("import", "-c", 'CMD ["sh", "-c", "echo imported"]', join(engine.dir, "imp.tar"), "imported:1");
    expect(ok("run", "--rm", "imported:1")).toBe("imported\n");
    ok("save", "-o", join(engine.dir, "saved.tar"), "imported:1");
    ok("rmi", "imported:1");
    ok("load", "-i", join(engine.dir, "saved.tar"));
    expect(ok("run", "--rm", "imported:1")).toBe("imported\n");
    ok("rmi", "imported:1");
  });

  test("volumes: create, list, inspect, in use, rm, prune", () => {
    ok("volume", "create", "--label", "x=y", "vol");
    expect(ok("volume", "ls", "-q", "--filter", "label=x=y")).toBe("vol\n");
    ok("create", "--name", "user", "-v", "vol:/v", "busybox");
    expect(engine.docker("volume", "rm", "vol").stderr).toContain("volume is in use");
    ok("rm", "user");
    ok("volume", "rm", "vol");
    expect(engine.docker("volume", "inspect", "vol").status).toBe(1);
  });

  test("networks: names resolve, connect and disconnect live, isolation", async () => {
    ok("network", "create", "--subnet", "10.217.77.0/24", "jbknet");
    ok(
      "run",
      "-d",
      "--name",
      "server",
      "--network",
      "jbknet",
      "--network-alias",
      "web",
      "busybox",
      "sh",
      "-c",
      "mkdir /w; echo page > /w/index.html; httpd -f -p 80 -h /w",
    );
    await until(
      "the server answers",
      () => engine.docker("run", "--rm", "--network", "jbknet", "busybox", "wget", "-qO-", "http://server/").stdout === "page\n",
    );
    expect(ok("run", "--rm", "--network", "jbknet", "busybox", "wget", "-qO-", "http://web/")).toBe("page\n");
    ok("run", "-d", "--name", "later", "busybox", "sleep", "100");
    expect(engine.docker("exec", "later", "wget", "-T", "1", "-qO-", "http://server/").status).not.toBe(0);
    ok("network", "connect", "jbknet", "later");
    expect(ok("exec", "later", "wget", "-qO-", "http://server/")).toBe("page\n");
    ok("network", "disconnect", "jbknet", "later");
    expect(engine.docker("exec", "later", "wget", "-T", "1", "-qO-", "http://10.217.77.2/").status).not.toBe(0);
    expect(engine.docker("network", "rm", "jbknet").stderr).toContain("active endpoints");
    ok("rm", "-f", "server", "later");
    ok("network", "rm", "jbknet");
  });

  test("published ports answer on localhost and on the host's address, and a taken one says so", async () => {
    ok(
      "run",
      "-d",
      "--name",
      "web",
      "-p",
      "127.0.0.1:28080:80",
      "-p",
      "28081:80",
      "busybox",
      "sh",
      "-c",
      "mkdir /w; echo port > /w/index.html; httpd -f -p 80 -h /w",
    );
    const get = (url: string) =>
      fetch(url, { signal: AbortSignal.timeout(2000) }).then(
        (answer) => answer.text(),
        () => "",
      );
    await until("localhost", async () => (await get("http://127.0.0.1:28080/")) === "port\n");
    expect(await get("http://127.0.0.1:28081/")).toBe("port\n");
    const bridge = ok("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge").trim();
    expect(await get(`http://${bridge}:28081/`)).toBe("port\n");
    const request = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2";
    expect(ok("run", "--rm", "busybox", "sh", "-c", `${request} ${bridge} 28081`)).toContain("port\n");
    expect(ok("port", "web", "80/tcp")).toContain("127.0.0.1:28080");
    const taken = engine.docker("run", "--name", "second", "-p", "28081:80", "busybox", "true");
    expect(taken.status).toBe(125);
    expect(taken.stderr).toContain("port is already allocated");
    ok("rm", "-f", "web", "second");
  });
});
