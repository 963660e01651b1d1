import { describe, expect, test } from "bun:test";
import { formatList, type ListFormat } from "./formatter.ts";
import { indentJson, parseExact } from "./json-text.ts";
import { familiarString, fullString, parseReference, withTag } from "./reference.ts";
import { align } from "./table.ts";
import { timestamp } from "./time.ts";
import { bytesSize, ellipsis, goDuration, humanDuration, humanSize, parseBytes, parseDuration, shortId } from "./units.ts";

test("sizes", () => {
  expect([0, 999, 1000, 1984172, 1e9, 123456789012].map((n) => humanSize(n))).toEqual(["0B", "999B", "1kB", "1.984MB", "1GB", "123.5GB"]);
  expect([1984172, 999, 12345, 123456].map((n) => humanSize(n, 3))).toEqual(["1.98MB", "999B", "12.3kB", "123kB"]);
  expect([0, 1024, 1536, 25276000000].map(bytesSize)).toEqual(["0B", "1KiB", "1.5KiB", "23.54GiB"]);
  expect(["10m", "1.5g", "1024", "10MB", "10MiB", "10 m", "x", "10i", "-1"].map(parseBytes)).toEqual([
    10485760,
    1610612736,
    1024,
    10485760,
    10485760,
    10485760,
    undefined,
    undefined,
    undefined,
  ]);
});

test("durations", () => {
  const s = 1000;
  const table: [number, string][] = [
    [100, "Less than a second"],
    [s, "1 second"],
    [59 * s, "59 seconds"],
    [60 * s, "About a minute"],
    [120 * s, "2 minutes"],
    [59 * 60 * s, "59 minutes"],
    [60 * 60 * s, "About an hour"],
    [2 * 3600 * s, "2 hours"],
    [47 * 3600 * s, "47 hours"],
    [48 * 3600 * s, "2 days"],
    [14 * 24 * 3600 * s, "2 weeks"],
    [60 * 24 * 3600 * s, "2 months"],
    [730 * 24 * 3600 * s, "2 years"],
  ];
  for (const [ms, text] of table) expect(humanDuration(ms)).toBe(text);
  expect(parseDuration("1h2m3.5s")).toBe(3723.5e9);
  expect(goDuration(90e9)).toBe("1m30s");
  expect(() => parseDuration("3x")).toThrow('time: unknown unit "x" in duration "3x"');
  expect(timestamp("10s", "", 1_000_000_000_000)).toBe("999999990.000000000");
  expect(timestamp("2013-01-02T13:23:37Z")).toBe("1357133017.000000000");
  expect(timestamp("1136073600.000000001")).toBe("1136073600.000000001");
  expect(() => timestamp("foo")).toThrow("failed to parse value as time or duration");
});

test("texts", () => {
  expect(ellipsis("sh -c 'echo out; echo err'", 20)).toBe("sh -c 'echo out; ec…");
  expect(shortId("sha256:0123456789abcdef")).toBe("0123456789ab");
  expect(indentJson('{"a":{},"b":[],"c":[1,{"d":"x:{,}\\""}]}')).toBe(
    '{\n    "a": {},\n    "b": [],\n    "c": [\n        1,\n        {\n            "d": "x:{,}\\""\n        }\n    ]\n}',
  );
  expect(parseExact("[9223372036854771712,1.5,3]")).toEqual([9223372036854771712n, 1.5, 3]);
});

test("columns", () => {
  expect(align("A\tB\nlonger value\tx\n")).toBe("A              B\nlonger value   x\n");
  expect(align("a\tb\tc\nd\n", { minWidth: 0, padding: 1 })).toBe("a b c\nd\n");
});

describe("lists", () => {
  interface Row {
    id: string;
    label: Record<string, string>;
  }
  const list: ListFormat<Row> = {
    type: "*formatter.ContainerContext",
    table: "{{.ID}}\t{{.Upper}}",
    quiet: "{{.ID}}",
    columns: {
      ID: { header: "CONTAINER ID", value: (row) => row.id },
      Upper: { header: "UPPER", value: (row) => row.id.toUpperCase() },
      Label: { header: "", method: true, value: (row, name) => row.label[name] ?? "" },
    },
  };
  const rows: Row[] = [
    { id: "a<1", label: { "com.x": "1" } },
    { id: "b", label: {} },
  ];
  const shown = (format: string, quiet = false) => formatList(list, rows, { format, quiet });
  test("formats", () => {
    expect(shown("")).toBe("CONTAINER ID   UPPER\na<1            A<1\nb              B\n");
    expect(shown("", true)).toBe("a<1\nb\n");
    expect(shown("json")).toBe('{"ID":"a\\u003c1","Upper":"A\\u003c1"}\n{"ID":"b","Upper":"B"}\n');
    expect(shown("{{json .ID}}")).toBe('"a<1"\n"b"\n');
    expect(shown('table {{.ID}}\\t{{.Label "com.x_y"}}')).toBe("CONTAINER ID   x y\na<1            \nb              \n");
    expect(shown("table {{lower .ID}}")).toBe("container id\na<1\nb\n");
    expect(shown("{{.ID}}\\n--")).toBe("a<1\n--\nb\n--\n");
    expect(() => shown("{{.Foo}}")).toThrow("failed to execute template: template: :1:2: executing");
    expect(() => shown("{{.ID")).toThrow("failed to parse template: template: :1: unclosed action");
  });
});

test("references", () => {
  const full = (text: string) => fullString(withTag(parseReference(text)));
  expect(full("busybox")).toBe("docker.io/library/busybox:latest");
  expect(full("a/b:1")).toBe("docker.io/a/b:1");
  expect(full("localhost:5000/a")).toBe("localhost:5000/a:latest");
  expect(familiarString(parseReference("docker.io/library/busybox:1"))).toBe("busybox:1");
  expect(familiarString(parseReference(`h.io/a@sha256:${"a".repeat(64)}`))).toBe(`h.io/a@sha256:${"a".repeat(64)}`);
  expect(() => parseReference("FOO")).toThrow("repository name (library/FOO) must be lowercase");
  for (const bad of ["a b", "", "a:b:c", "a@x", "/a", "a//b", "-a"]) expect(() => parseReference(bad)).toThrow("invalid reference format");
});
