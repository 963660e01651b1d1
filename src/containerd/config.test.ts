import { expect, test } from "bun:test";
import { defaults, parseToml, printDefaults, readConfig } from "./config.ts";

test("the defaults, printed, read back as the defaults", () => {
  expect(readConfig(printDefaults())).toEqual({ config: { ...defaults }, unknown: [] });
});

test("a containerd config.toml: what is known is taken, what is not is named", () => {
  const text = `version = 2   # a comment
root = '/a#b'
disabled_plugins = [ "x",
  "y", ] # over lines
[grpc]
  address = "/run/c.sock"
  uid = 0
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
`;
  const { config, unknown } = readConfig(text);
  expect(config).toEqual({ root: "/a#b", address: "/run/c.sock" });
  expect(unknown.map((line) => /config: (\S+)/.exec(line)?.[1])).toEqual([
    "disabled_plugins",
    "grpc.uid",
    "plugins.io.containerd.grpc.v1.cri.containerd.snapshotter",
  ]);
  expect(parseToml(text).get("disabled_plugins")).toEqual(["x", "y"]);
});

test("what is no TOML says in which line", () => {
  expect(() => readConfig("root = \n")).toThrow("config line 1");
  expect(() => readConfig("version = 2\nroot")).toThrow("config line 2");
  expect(() => readConfig("root = 5")).toThrow("root must be a string");
  expect(() => readConfig("version = 9")).toThrow("version 9");
  expect(() => readConfig("[a\n")).toThrow("unclosed table");
});
