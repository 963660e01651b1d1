import { describe, expect, test } from "bun:test";
import {
  bool,
  bytes,
  cpus,
  csvFields,
  duration,
  FlagError,
  filter,
  HelpAsked,
  int,
  list,
  map,
  parseFlags,
  string,
  strings,
  uint,
} from "./flags.ts";

const flags = {
  all: bool("a", ""),
  quiet: bool("q", ""),
  publish: list("p", ""),
  env: list("e", ""),
  name: string("", ""),
  last: int("n", "", -1),
  memory: bytes("m", ""),
  swap: bytes("", "", true),
  cpus: cpus("", ""),
  time: duration("", ""),
  filter: filter(""),
  opt: map("o", ""),
  alias: strings("", ""),
  weight: uint("", "", 16),
};

const values = (...argv: string[]) => parseFlags(flags, argv).values;

describe("pflag's forms", () => {
  test("bundles, values glued and apart, equals", () => {
    expect(values("-aq")).toMatchObject({ all: true, quiet: true });
    expect(values("-p80:80", "-p", "1:1", "-p=2:2", "--publish", "3", "--publish=4").publish).toEqual(["80:80", "1:1", "2:2", "3", "4"]);
    expect(values("-aqp", "80").publish).toEqual(["80"]);
    expect(values("-aqp80")).toMatchObject({ all: true, publish: ["80"] });
    expect(values("--all=false").all).toBe(false);
    expect(values("-a=0").all).toBe(false);
    expect(values("--name=").name).toBe("");
    expect(values("--name", "--x").name).toBe("--x");
  });

  test("arguments among flags, and after --", () => {
    expect(parseFlags(flags, ["x", "-a", "y"]).args).toEqual(["x", "y"]);
    expect(parseFlags(flags, ["x", "--", "-a"]).args).toEqual(["x", "-a"]);
    expect(parseFlags(flags, ["-"]).args).toEqual(["-"]);
    const run = parseFlags(flags, ["-a", "busybox", "-q", "--name", "z"], false);
    expect(run.args).toEqual(["busybox", "-q", "--name", "z"]);
    expect(run.values.quiet).toBe(false);
    expect([...run.changed]).toEqual(["all"]);
  });

  test("types", () => {
    expect(values("-n", "-3").last).toBe(-3);
    expect(values("-m", "1.5g").memory).toBe(1610612736);
    expect(values("-m", "10MiB").memory).toBe(10485760);
    expect(values("--swap", "-1").swap).toBe(-1);
    expect(values("--cpus", ".5").cpus).toBe(500000000);
    expect(values("--time", "1m30s").time).toBe(90e9);
    expect(values("-f", "a=b", "-f", "A=c").filter).toEqual({ a: ["b", "c"] });
    expect(values("-o", "a=b=c", "-o", "d").opt).toEqual({ a: "b=c", d: "" });
    expect(values("--alias", "a,b", "--alias", '"c,d"').alias).toEqual(["a", "b", "c,d"]);
  });
});

const wrong: [string[], string][] = [
  [["--foo"], "unknown flag: --foo"],
  [["-X"], "unknown shorthand flag: 'X' in -X"],
  [["-aX"], "unknown shorthand flag: 'X' in -X"],
  [["--name"], "flag needs an argument: --name"],
  [["-p"], "flag needs an argument: 'p' in -p"],
  [["-n", "x"], 'invalid argument "x" for "-n, --last" flag: strconv.ParseInt: parsing "x": invalid syntax'],
  [["--all=maybe"], 'invalid argument "maybe" for "-a, --all" flag: strconv.ParseBool: parsing "maybe": invalid syntax'],
  [["-m", "abc"], 'invalid argument "abc" for "-m, --memory" flag: invalid size: \'abc\''],
  [["--time", "3"], 'invalid argument "3" for "--time" flag: time: missing unit in duration "3"'],
  [["--cpus", "x"], 'invalid argument "x" for "--cpus" flag: failed to parse x as a rational number'],
  [["-f", "foo"], 'invalid argument "foo" for "-f, --filter" flag: bad format of filter (expected name=value)'],
  [["--weight", "99999"], 'invalid argument "99999" for "--weight" flag: strconv.ParseUint: parsing "99999": value out of range'],
  [["---x"], "bad flag syntax: ---x"],
];

describe("mistakes", () => {
  test.each(wrong)("%p", (argv, message) => {
    expect(() => parseFlags(flags, argv)).toThrow(FlagError);
    expect(() => parseFlags(flags, argv)).toThrow(message);
  });
  test("help", () => {
    expect(() => parseFlags(flags, ["--help"])).toThrow(HelpAsked);
    expect(() => parseFlags(flags, ["-h"])).toThrow(HelpAsked);
    expect(parseFlags({ hostname: string("h", "") }, ["-h", "x"]).values.hostname).toBe("x");
  });
});

test("comma-separated values", () => {
  expect(csvFields("a,b")).toEqual(["a", "b"]);
  expect(csvFields('"a,b",c')).toEqual(["a,b", "c"]);
  expect(csvFields('"a""b"')).toEqual(['a"b']);
  expect(csvFields("a,")).toEqual(["a", ""]);
  expect(() => csvFields('a"b')).toThrow('bare "');
  expect(() => csvFields('"a')).toThrow('missing "');
});
