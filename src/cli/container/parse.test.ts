import { describe, expect, test } from "bun:test";
import { parseFlags } from "../flags.ts";
import { parseMount } from "./mounts.ts";
import { containerFlags } from "./options.ts";
import { forVersion, parseContainer } from "./parse.ts";
import { expose, parsePort, publish } from "./ports.ts";

function parse(...argv: string[]) {
  const { values, args, changed } = parseFlags(containerFlags, argv, false);
  return parseContainer(values, args, changed, {});
}

test("a whole command line", () => {
  const { body } = parse(
    "-it",
    "--rm",
    "-e",
    "A=1",
    "-p",
    "8080:80",
    "-m",
    "10m",
    "--cpus",
    "1.5",
    "--restart",
    "no",
    "-v",
    "/a:/b",
    "busybox",
    "sh",
    "-c",
    "x",
  );
  expect(body).toEqual({
    AttachStdin: true,
    AttachStdout: true,
    AttachStderr: true,
    ExposedPorts: { "80/tcp": {} },
    Tty: true,
    OpenStdin: true,
    StdinOnce: true,
    Env: ["A=1"],
    Cmd: ["sh", "-c", "x"],
    Image: "busybox",
    HostConfig: {
      Binds: ["/a:/b"],
      PortBindings: { "80/tcp": [{ HostIp: "", HostPort: "8080" }] },
      RestartPolicy: { Name: "no", MaximumRetryCount: 0 },
      AutoRemove: true,
      Memory: 10485760,
      NanoCpus: 1500000000,
      NetworkMode: "default",
    },
    NetworkingConfig: { EndpointsConfig: { default: {} } },
  });
});

test("older engines", () => {
  const parsed = parse("--network", "a", "--network", "b", "--mac-address", "92:d0:c6:0a:29:33", "busybox");
  expect(Object.keys(forVersion(parsed, 50).NetworkingConfig!.EndpointsConfig!)).toEqual(["a", "b"]);
  const old = forVersion(parsed, 41);
  expect(old.MacAddress).toBe("92:d0:c6:0a:29:33");
  expect(old.NetworkingConfig).toEqual({ EndpointsConfig: { a: {} } });
  expect(parsed.furtherNetworks).toEqual([["b", {}]]);
});

describe("ports", () => {
  test("forms", () => {
    expect(parsePort("80")).toEqual([{ ip: "", hostPort: "", port: "80/tcp" }]);
    expect(parsePort("[::1]:81:80/udp")).toEqual([{ ip: "::1", hostPort: "81", port: "80/udp" }]);
    expect(parsePort("1000-1001:80-81").map((p) => `${p.hostPort}>${p.port}`)).toEqual(["1000>80/tcp", "1001>81/tcp"]);
    expect(parsePort("9000-9010:90")).toEqual([{ ip: "", hostPort: "9000-9010", port: "90/tcp" }]);
    expect(publish(["target=80,published=8080,protocol=udp"]).bindings).toEqual({ "80/udp": [{ HostIp: "", HostPort: "8080" }] });
    expect(expose("70-72/udp")).toEqual(["70/udp", "71/udp", "72/udp"]);
  });
  test.each([
    ["foo", "invalid containerPort: foo"],
    ["1:2:3", "invalid IP address: 1"],
    ["80-90:80-82", "invalid ranges specified for container and host Ports: 80-82 and 80-90"],
    ["99999:80", "invalid hostPort: 99999"],
    ["80/foo", "invalid proto: foo"],
  ])("%s", (spec, message) => {
    expect(() => parsePort(spec)).toThrow(message);
  });
});

test("mounts", () => {
  expect(parseMount("type=bind,src=/a,dst=/b,ro")).toEqual({ Type: "bind", Source: "/a", Target: "/b", ReadOnly: true });
  expect(parseMount('type=volume,src=v,dst=/v,"volume-opt=o=a,b"')).toMatchObject({
    VolumeOptions: { DriverConfig: { Options: { o: "a,b" } } },
  });
  for (const [spec, message] of [
    ["type=bind", "target is required"],
    ["foo", "invalid field 'foo' must be a key=value pair"],
    ["foo=bar", "unexpected key 'foo' in 'foo=bar'"],
    ["type=volume,tmpfs-size=1m,dst=/x", "cannot mix 'tmpfs-*' options with mount type 'volume'"],
  ] as const) {
    expect(() => parseMount(spec)).toThrow(message);
  }
});

test.each([
  [["--pid", "x"], "--pid: invalid PID mode"],
  [["--rm", "--restart", "always"], "conflicting options: cannot specify both --restart and --rm"],
  [["--no-healthcheck", "--health-cmd", "x"], "--no-healthcheck conflicts with --health-* options"],
  [["-v", ":/a"], "invalid spec: :/a: empty section between colons"],
  [["--device", "x"], "x is not an absolute path"],
  [["--network", "host", "--network-alias", "x"], "network-scoped aliases are only supported for user-defined networks"],
  [["--log-driver", "none", "--log-opt", "a=b"], "invalid logging opts for driver none"],
])("%p", (argv, message) => {
  expect(() => parse(...argv, "busybox")).toThrow(message);
});
