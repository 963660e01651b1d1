import { expect, test } from "bun:test";
import { parseOptions } from "./config.ts";
import { parseBytes } from "./config-values.ts";

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

test("daemon.json: what builds are granted, and whether BuildKit is preferred", () => {
  expect(parse([], {}).config.builder).toEqual({
    entitlements: ["network.host"],
    preferred: true,
    collect: { enabled: true, reservedSpace: undefined },
  });
  const given = {
    builder: { entitlements: { "security-insecure": true, "network-host": false } },
    features: { buildkit: false, other: true },
  };
  expect(parse([], given).config.builder).toMatchObject({ entitlements: ["security.insecure"], preferred: false });
  const kept = parse([], { builder: { gc: { enabled: true, defaultKeepStorage: "20GB" } } }).config.builder?.collect;
  expect(kept).toEqual({ enabled: true, reservedSpace: 20 * 2 ** 30 });
  expect(() => parse([], { builder: { gc: { policy: [] } } })).toThrow('"builder.gc.policy" is not supported');
  expect(() => parse([], { builder: { other: {} } })).toThrow('"builder.other" is not supported');
  expect(() => parse([], { builder: { entitlements: { device: true } } })).toThrow("not supported");
  expect(() => parse([], { features: { buildkit: "yes" } })).toThrow("must be an object of booleans");
});

test("registries: proxies by flag and by daemon.json's object, limits, attempts", () => {
  const flags = ["--https-proxy", "http://p:1", "--max-concurrent-uploads", "2", "--max-download-attempts=7"];
  const { config } = parseOptions(flags, () => JSON.stringify({ proxies: { "http-proxy": "http://q:2", "no-proxy": "a,b" } }));
  expect(config.proxies).toEqual({ http: "http://q:2", https: "http://p:1", none: "a,b" });
  expect([config.maxConcurrentDownloads, config.maxConcurrentUploads, config.maxDownloadAttempts]).toEqual([3, 2, 7]);
  expect(() => parseOptions([], () => '{"proxies":"x"}')).toThrow('the setting "proxies" must be an object');
  expect(() => parseOptions(["--no-proxy", "c"], () => '{"proxies":{"no-proxy":"a"}}')).toThrow("specified both as a flag");
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

test("limits that are none are refused", () => {
  expect(() => parse(["--default-ulimit", "nofiles=1:2"])).toThrow("invalid ulimit type: nofiles");
  expect(() => parse(["--default-ulimit", "nofile=3:2"])).toThrow("ulimit soft limit must be less than or equal to hard limit: 3 > 2");
  expect(() => parse([], { "default-ulimits": { nofiles: { Name: "nofiles", Soft: 1, Hard: 2 } } })).toThrow(
    "invalid ulimit type: nofiles",
  );
  expect(() => parse([], { "default-ulimits": { nofile: 5 } })).toThrow("must have the numbers Soft and Hard");
  expect(parse([], { "default-ulimits": { core: { Soft: 0, Hard: -1 } } }).config.defaultUlimits).toEqual({
    core: { Name: "core", Soft: 0, Hard: -1 },
  });
});

test("the default bridge and the ranges of networks", () => {
  const plain = {
    ipv6: false,
    fixedCidr: undefined,
    fixedCidrV6: undefined,
    mtu: 1500,
    icc: true,
    masquerade: true,
    hostBinding: "0.0.0.0",
  };
  expect(parse([]).config).toMatchObject({ defaultNetwork: plain, addressPools: undefined });
  const flags = ["--bip=10.9.0.1/16", "--ipv6", "--fixed-cidr=10.9.4.0/24", "--fixed-cidr-v6=fd00:9::5/64", "--mtu=1400", "--icc=false"];
  const pools = ["--default-address-pool", "base=10.80.0.0/16,size=24", "--default-address-pool=base=fd00:1::/48,size=64"];
  const { config } = parse([...flags, ...pools, "--ip-masq=false", "--ip=127.0.0.1"]);
  expect(config.defaultNetwork).toEqual({
    ipv6: true,
    fixedCidr: "10.9.4.0/24",
    fixedCidrV6: "fd00:9::/64",
    mtu: 1400,
    icc: false,
    masquerade: false,
    hostBinding: "127.0.0.1",
  });
  expect(config.addressPools).toEqual([
    { base: "10.80.0.0/16", size: 24 },
    { base: "fd00:1::/48", size: 64 },
  ]);
  expect(parse([], { "default-address-pools": [{ base: "10.1.0.0/16", size: 20 }] }).config.addressPools).toEqual([
    { base: "10.1.0.0/16", size: 20 },
  ]);
  for (const [argv, message] of [
    [["--fixed-cidr", "banana"], "invalid CIDR address: banana"],
    [["--bip=10.9.0.1/16", "--fixed-cidr=10.8.0.0/24"], "is not within the default bridge's subnet"],
    [["--fixed-cidr-v6", "10.0.0.0/8"], "invalid CIDR address: 10.0.0.0/8"],
    [["--mtu", "5"], "invalid MTU number: 5"],
    [["--ip", "here"], "here is not an ip address"],
    [["--default-address-pool", "10.0.0.0/8"], "must be of the form base=CIDR,size=NUMBER"],
    [["--default-address-pool", "base=10.0.0.0/8,size=4"], "invalid size 4 of the pool"],
  ] as [string[], string][])
    expect(() => parse(argv)).toThrow(message);
});

test("what many a daemon.json has: understood, or refused where it would mean something", () => {
  const { config } = parse([], {
    "storage-driver": "overlay2",
    "userland-proxy": false,
    iptables: true,
    experimental: false,
    "selinux-enabled": false,
    "no-new-privileges": true,
    "default-ipc-mode": "shareable",
    "default-cgroupns-mode": "private",
    "host-gateway-ip": "10.0.0.9",
    "ip-forward": false,
  });
  expect(config).toMatchObject({
    containerDefaults: { noNewPrivileges: true, ipcMode: "shareable", cgroupnsMode: "private" },
    hostGateways: ["10.0.0.9"],
    ipForward: false,
  });
  expect(parse([]).config).toMatchObject({
    containerDefaults: { noNewPrivileges: false, ipcMode: "private", cgroupnsMode: undefined },
    hostGateways: [],
    ipForward: true,
  });
  for (const [file, message] of [
    [{ "storage-driver": "btrfs" }, "the storage driver btrfs is not supported"],
    [{ iptables: false }, "--iptables=false is not supported"],
    [{ "selinux-enabled": true }, "containers get no SELinux labels"],
    [{ "default-ipc-mode": "host" }, "IPC mode host can not be used as default"],
    [{ "default-cgroupns-mode": "odd" }, "cgroup namespace mode odd is not supported"],
    [{ "host-gateway-ip": "here" }, "here is not an ip address"],
  ] as [object, string][])
    expect(() => parse([], file)).toThrow(message);
});
