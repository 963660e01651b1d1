import { expect, test } from "bun:test";
import { parseBytes, parseOptions } from "./config.ts";

const parse = (argv: string[], file?: object) => parseOptions(argv, () => (file ? JSON.stringify(file) : undefined));

test("defaults, and flags in every spelling", () => {
  const { config } = parse([
    "-H",
    "unix:///x.sock",
    "-H=fd://",
    "-Htcp://127.0.0.1",
    "-D",
    "--data-root=/d",
    "--exec-root",
    "/e",
    "--tls=false",
  ]);
  expect(config.hosts).toEqual(["unix:///x.sock", "fd://", "tcp://127.0.0.1:2375"]);
  expect(config).toMatchObject({
    debug: true,
    dataRoot: "/d",
    execRoot: "/e",
    pidfile: "/e/jubakod.pid",
    bridge: "jubako0",
    defaultRuntime: "jubako",
  });
  expect(parse([]).config.hosts).toEqual(["unix:///run/jubako/docker.sock"]);
});

test("runtimes, pairs, limits", () => {
  const { config } = parse([
    "--add-runtime",
    "runc=/usr/bin/runc",
    "--log-opt",
    "max-size=1m",
    "--default-ulimit",
    "nofile=1:2",
    "--default-shm-size",
    "1g",
  ]);
  expect(config.runtimes).toEqual({ runc: { path: "/usr/bin/runc" } });
  expect(config.logOpts).toEqual({ "max-size": "1m" });
  expect(config.defaultUlimits).toEqual({ nofile: { Name: "nofile", Soft: 1, Hard: 2 } });
  expect(config.defaultShmSize).toBe(1024 ** 3);
  expect(parseBytes("64m")).toBe(64 << 20);
});

test("daemon.json: read, conflicts with flags, unknown keys, wrong types", () => {
  expect(parse([], { debug: true, hosts: ["unix:///y"], runtimes: { crun: { path: "/crun" } } }).config).toMatchObject({
    debug: true,
    hosts: ["unix:///y"],
    runtimes: { crun: { path: "/crun" } },
  });
  expect(() => parse(["--bip", "10.0.0.1/24"], { bip: "10.0.1.1/24" })).toThrow(
    "the following directives are specified both as a flag and in the configuration file: bip: (from flag: 10.0.0.1/24, from file: 10.0.1.1/24)",
  );
  expect(() => parse([], { nonsense: 1 })).toThrow("the following directives don't match any configuration option: nonsense");
  expect(() => parse([], { debug: "yes" })).toThrow('the setting "debug" must be true or false');
  expect(() => parse(["--config-file", "/nowhere"])).toThrow("no such file or directory");
});

test("what makes no sense is refused", () => {
  expect(() => parse(["--nonsense"])).toThrow("unknown flag: --nonsense");
  expect(() => parse(["-q"])).toThrow("unknown shorthand flag: 'q' in -q");
  expect(() => parse(["--bip"])).toThrow("flag needs an argument: --bip");
  expect(() => parse(["--bip", "x"])).toThrow("invalid CIDR address: x");
  expect(() => parse(["-H", "http://x"])).toThrow("invalid bind address");
  expect(() => parse(["start"])).toThrow("unknown argument: start");
});

test("tcp without verified clients must be asked for in words", () => {
  const mode = (...argv: string[]) => parse(argv).config.tls.mode;
  expect(mode()).toBe("unsaid");
  expect(mode("--tls")).toBe("unsaid");
  expect(mode("--tls", "--tlsverify=false")).toBe("encrypt");
  expect(mode("--tls=false")).toBe("off");
  expect(mode("--tlsverify")).toBe("verify");
});
