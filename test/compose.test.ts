// docker compose against the engine: the Go one (as "docker-compose" or "docker-compose-v5" on PATH) and the one in Python that came before (1.29).
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { lacks, startEngine, type TestEngine, until } from "./support/engine.ts";
import { freePort } from "./support/registry.ts";

const SERVICES = `
services:
  db:
    image: busybox
    command: sh -c 'mkdir -p /data/www; echo from-db > /data/www/index.html; trap "exit 0" TERM; httpd -p 80 -h /data/www; while :; do sleep 0.1; done'
    volumes: ["data:/data"]
    healthcheck: {test: [CMD, wget, -qO, /dev/null, "http://127.0.0.1/"], interval: 300ms, timeout: 2s, retries: 20}
    networks: {back: {aliases: [database]}}
  web:
    image: busybox
    command: sh -c 'echo started; wget -qO- http://database/; exec sleep 1000'
    depends_on: {db: {condition: service_healthy}}
    environment: {GREETING: hello}
    stop_signal: KILL
    networks: [back, front]
  once:
    image: busybox
    command: "true"
    networks: [front]
  after:
    image: busybox
    command: sh -c 'echo after; exec sleep 1000'
    depends_on: {once: {condition: service_completed_successfully}}
    stop_signal: KILL
    init: true
    ports: ["127.0.0.1:PORT:80"]
    tmpfs: [/scratch]
    ulimits: {nofile: 1000}
    sysctls: {net.ipv4.ip_default_ttl: 99}
    extra_hosts: ["elsewhere:1.2.3.4"]
    networks: [front]
networks:
  back: {internal: true}
  front: {}
volumes:
  data: {labels: {kept: "yes"}}
`;

describe.skipIf(lacks("docker"))("compose", () => {
  let engine: TestEngine;
  beforeAll(async () => {
    engine = await startEngine();
  });
  afterAll(() => engine?.stop());

  for (const program of ["docker-compose", "docker-compose-v5"])
    test.skipIf(lacks(program))(
      `${program}: a project from up to down`,
      async () => {
        const dir = join(engine.dir, program);
        mkdirSync(dir);
        const port = await freePort();
        // 1.29 knows the specification by its version alone.
        writeFileSync(join(dir, "docker-compose.yml"), `version: "3.9"\n${SERVICES.replace("PORT", String(port))}`);
        const env = { ...process.env, DOCKER_HOST: engine.host, COMPOSE_PROJECT_NAME: "project", HOME: dir, DOCKER_CONFIG: dir };
        const compose = (...args: string[]) => {
          const result = spawnSync(program, args, { cwd: dir, env, encoding: "utf8", timeout: 60_000, stdio: ["ignore", "pipe", "pipe"] });
          expect({ args, status: result.status, said: result.status === 0 ? "" : result.stderr }).toEqual({ args, status: 0, said: "" });
          return result.stdout;
        };
        const names = (...filter: string[]) =>
          engine
            .docker("ps", "--format", '{{.Label "com.docker.compose.service"}}', ...filter)
            .stdout.split("\n")
            .filter(Boolean)
            .sort();
        try {
          compose("up", "-d");
          expect(names()).toEqual(["after", "db", "web"]);
          expect(names("-f", "health=healthy")).toEqual(["db"]);
          expect(names("-a", "-f", "exited=0")).toEqual(["once"]);
          await until("web's output", () =>
            engine
              .docker("logs", engine.docker("ps", "-q", "-f", "label=com.docker.compose.service=web").stdout.trim())
              .stdout.includes("from-db"),
          );
          const logs = compose("logs");
          expect(logs).toContain("from-db");
          expect(logs).toMatch(/after[^\n]*\|\S* after\n/);
          expect(compose("exec", "-T", "web", "sh", "-c", "echo $GREETING; wget -qO- http://db/")).toBe("hello\nfrom-db\n");
          const look = "ulimit -n; cat /proc/sys/net/ipv4/ip_default_ttl; grep elsewhere /etc/hosts; grep -c /scratch /proc/mounts";
          expect(compose("exec", "-T", "after", "sh", "-c", look)).toBe("1000\n99\n1.2.3.4\telsewhere\n1\n");
          compose("up", "-d", "--scale", "web=3");
          expect(names()).toEqual(["after", "db", "web", "web", "web"]);
          expect(compose("run", "--rm", "-T", "web", "sh", "-c", "wget -qO- http://database/")).toContain("from-db");
          // The one in Python takes a second for each.
          if (program === "docker-compose-v5") {
            expect(compose("port", "after", "80")).toBe(`127.0.0.1:${port}\n`);
            expect(compose("ps")).toContain("web");
            expect(compose("top", "db")).toContain("httpd");
            compose("pause", "web");
            expect(names("-f", "status=paused")).toEqual(["web", "web", "web"]);
            compose("unpause", "web");
            compose("restart", "web");
          }
          compose("up", "-d", "--force-recreate", "after");
          compose("stop");
          expect(names()).toEqual([]);
          compose("start");
          await until("all run again", () => names().length >= 5);
        } finally {
          compose("down", "-v", "-t", "2");
        }
        expect(engine.docker("ps", "-aq").stdout).toBe("");
        expect(engine.docker("volume", "ls", "-q").stdout).toBe("");
        expect(engine.docker("network", "ls", "-q", "-f", "type=custom").stdout).toBe("");
      },
      120_000,
    );

  test.skipIf(lacks("docker-compose-v5"))(
    "docker-compose-v5: secrets, configs, limits, what changed is made anew",
    () => {
      const dir = join(engine.dir, "newer");
      mkdirSync(dir);
      const file = (memory: string) =>
        writeFileSync(
          join(dir, "compose.yaml"),
          `services: {one: {image: busybox, command: sleep 1000, stop_signal: KILL, secrets: [s], configs: [{source: c, target: /etc/c}], deploy: {resources: {limits: {memory: ${memory}, cpus: "0.5"}}}}}
secrets: {s: {environment: SECRET}}
configs: {c: {content: "configured"}}
`,
        );
      const env = {
        ...process.env,
        DOCKER_HOST: engine.host,
        COMPOSE_PROJECT_NAME: "newer",
        HOME: dir,
        DOCKER_CONFIG: dir,
        SECRET: "hush",
      };
      const compose = (...args: string[]) => {
        const result = spawnSync("docker-compose-v5", args, { cwd: dir, env, encoding: "utf8", timeout: 60_000 });
        expect({ args, status: result.status, said: result.status === 0 ? "" : result.stderr }).toEqual({ args, status: 0, said: "" });
        return result.stdout;
      };
      try {
        file("64M");
        compose("up", "-d", "--wait");
        expect(compose("exec", "-T", "one", "cat", "/run/secrets/s", "/etc/c")).toBe("hushconfigured");
        const id = () => engine.docker("ps", "-q", "--no-trunc").stdout.trim();
        const first = id();
        compose("up", "-d");
        expect(id()).toBe(first);
        file("32M");
        compose("up", "-d");
        expect(id()).not.toBe(first);
        expect(engine.docker("inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", id()).stdout).toBe("33554432 500000000\n");
      } finally {
        compose("down", "-t", "1");
      }
    },
    60_000,
  );
});
