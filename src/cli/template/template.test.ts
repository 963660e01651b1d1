import { describe, expect, test } from "bun:test";
import { compile, STRUCT, TemplateError, TemplateSyntaxError } from "./index.ts";

const data = {
  Id: "483b5271bbaa241f5dbd59ef0862e15b8d5c539900cb5e1bb83be3b33e23bbf4",
  Name: "/c1",
  State: { Status: "running", Running: true, Pid: 4423, ExitCode: 0 },
  Config: { Labels: { "com.x": "1", a: "b" }, Env: ["X=1", "Y=2"], Cmd: null },
  Ratio: 1.5,
  Empty: [],
  Mounts: [{ Type: "bind", RW: true }],
};

// Each expected text is what Go's text/template with docker's functions prints.
const good: [string, string][] = [
  ["plain", "plain"],
  ["{{.Name}}", "/c1"],
  ["{{.State.Pid}}", "4423"],
  ["{{.Ratio}}", "1.5"],
  ["{{.Config.Labels}}", "map[a:b com.x:1]"],
  ["{{.Config.Labels.nope}}", "<no value>"],
  ["{{.Config.Env}}", "[X=1 Y=2]"],
  ["{{.Config.Cmd}}", "<nil>"],
  ["{{json .State}}", '{"Status":"running","Running":true,"Pid":4423,"ExitCode":0}'],
  ['{{json "<a&b>"}}', '"<a&b>"'],
  ["{{index .Config.Env 0}}", "X=1"],
  ['{{index .Config.Labels "zz"}}', ""],
  ["{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "a=b;com.x=1;"],
  ["{{range $i, $e := .Config.Env}}{{$i}}:{{$e}} {{end}}", "0:X=1 1:Y=2 "],
  ["{{range .Empty}}x{{else}}none{{end}}", "none"],
  ['{{range .Config.Env}}{{if eq . "Y=2"}}{{break}}{{end}}{{.}}{{end}}', "X=1"],
  ['{{range .Config.Env}}{{if eq . "X=1"}}{{continue}}{{end}}{{.}}{{end}}', "Y=2"],
  ['{{printf "%s %d %v %q" .Name .State.ExitCode .State.Running .Name}}', '/c1 0 true "/c1"'],
  ['{{printf "%-30s|%5.2f|%x|%t|%T" .Name 1.5 255 true .State.Pid}}', "/c1                           | 1.50|ff|true|int"],
  ['{{printf "%d" .Name}}', "%!d(string=/c1)"],
  ['{{printf "%s"}}', "%!s(MISSING)"],
  ['{{printf "x" 1}}', "x%!(EXTRA int=1)"],
  ['{{ .Name | printf "%10s|" }}', "       /c1|"],
  ["{{len .Mounts}} {{len .Name}} {{len .Config.Labels}}", "1 3 2"],
  ['{{lower .Name}} {{upper .Name}} {{title "abc def"}} {{pad "x" 2 3}}| {{truncate "abcdef" 3}}', "/c1 /C1 Abc Def   x   | abc"],
  ['{{split .Name "c"}}', "[/ 1]"],
  ['{{join .Config.Env ","}}', "X=1,Y=2"],
  ["{{eq .State.ExitCode 0}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt .State.Pid 5}} {{ge 1 2}}", "true true true true true false"],
  ['{{eq .Name "x" "/c1"}}', "true"],
  ["{{and 1 0}} {{or 0 2}} {{not true}}", "0 2 false"],
  ["{{if and .Config.Cmd .Nope.Deep}}x{{else}}y{{end}}", "y"],
  ["{{if .State.Running}}up{{else if .Name}}named{{else}}none{{end}}", "up"],
  ["{{with .State}}{{.Pid}}{{$.Name}}{{else}}none{{end}}", "4423/c1"],
  ["{{with $x := 5}}{{$x}}{{end}}", "5"],
  ["{{$x := 1}}{{$x}}{{$x = 2}}{{$x}}", "12"],
  ["{{println .Name}}|", "/c1\n|"],
  ['{{print .Name 1 2 "x"}}', "/c11 2x"],
  ["{{slice .Id 0 5}} {{slice .Config.Env 1}}", "483b5 [Y=2]"],
  ['{{html "<a>"}} {{urlquery "a b&"}} {{js "a\'b"}}', "&lt;a&gt; a+b%26 a\\'b"],
  ["{{\"a\\tb\"}} {{`raw\\n`}} {{'a'}}", "a\tb raw\\n 97"],
  ["a  {{- 1 -}}  b", "a1b"],
  ["{{/* a comment */}}x{{- /* y */ -}} z", "xz"],
  ["{{(index .Mounts 0).Type}}", "bind"],
  ['{{len (split .Name "")}}', "3"],
  ['{{define "t"}}<{{.}}>{{end}}{{template "t" .Name}}', "</c1>"],
  ['{{block "b" .Name}}[{{.}}]{{end}}', "[/c1]"],
  ["{{true}} {{0x10}} {{1_000}} {{-3}} {{1e3}}", "true 16 1000 -3 1000"],
];

describe("what Go prints", () => {
  test.each(good)("%s", (source, expected) => {
    expect(compile(source)(data)).toBe(expected);
  });
});

const syntax: [string, string][] = [
  ["{{foo .}}", 'template: :1: function "foo" not defined'],
  ["{{if}}", "template: :1: missing value for if"],
  ["{{end}}", "template: :1: unexpected {{end}}"],
  ["{{range .X}}", "template: :1: unexpected EOF"],
  ["{{.Name", "template: :1: unclosed action"],
  ["{{", "template: :1: unclosed action"],
  ['{{"abc}}', "template: :1: unterminated quoted string"],
  ["{{$y}}", 'template: :1: undefined variable "$y"'],
  ["\n\n{{foo}}", 'template: :3: function "foo" not defined'],
  ["{{/* x }}", "template: :1: unclosed comment"],
  ["{{break}}", "template: :1: {{break}} outside {{range}}"],
  ["{{(1}}", "template: :1: unclosed left paren"],
  ["{{}}", "template: :1: missing value for command"],
];

describe("templates that are none", () => {
  test.each(syntax)("%s", (source, message) => {
    expect(() => compile(source)).toThrow(TemplateSyntaxError);
    expect(() => compile(source)).toThrow(message);
  });
});

const refuse = (_map: object, key: string) => {
  throw new Error(`map has no entry for key "${key}"`);
};
const failing: [string, string][] = [
  ["{{.Foo}}", ':1:2: executing "" at <.Foo>: map has no entry for key "Foo"'],
  ["{{.State.Foo}}", ':1:8: executing "" at <.State.Foo>: map has no entry for key "Foo"'],
  ["{{.State.Pid.X}}", ':1:8: executing "" at <.State.Pid.X>: can\'t evaluate field X in type interface {}'],
  ["{{index .Config.Env 10}}", ':1:2: executing "" at <index .Config.Env 10>: error calling index: index out of range: 10'],
  ['{{lt 1 "a"}}', ':1:2: executing "" at <lt 1 "a">: error calling lt: incompatible types for comparison'],
  ["{{len 3}}", ':1:2: executing "" at <len 3>: error calling len: len of type int'],
  ["{{call .Name}}", ':1:2: executing "" at <call .Name>: error calling call: non-function .Name of type string'],
  ['{{template "x"}}', ':1:11: executing "" at <{{template "x"}}>: template "x" not defined'],
  ['{{join .Name ","}}', ':1:7: executing "" at <.Name>: wrong type for value; expected []string; got string'],
  ["{{with .Nosuch}}x{{end}}", ':1:7: executing "" at <.Nosuch>: map has no entry for key "Nosuch"'],
  ["a\nb {{.Foo}}", ':2:4: executing "" at <.Foo>: map has no entry for key "Foo"'],
];

describe("templates that fail", () => {
  test.each(failing)("%s", (source, message) => {
    const run = compile(source);
    expect(() => run(data, { missing: refuse })).toThrow(TemplateError);
    expect(() => run(data, { missing: refuse })).toThrow(`template: ${message}`);
  });
});

test("structs and methods", () => {
  const row = { ID: () => "abc", Label: (name: unknown) => `<${name}>` };
  Object.defineProperty(row, STRUCT, { value: "*formatter.ContainerContext" });
  expect(compile('{{.ID}} {{.Label "x"}}')(row)).toBe("abc <x>");
  expect(() => compile("{{.Foo}}")(row)).toThrow("can't evaluate field Foo in type *formatter.ContainerContext");
  expect(() => compile("{{.Label}}")(row)).toThrow("wrong number of args for Label: want 1 got 0");
});

test("hostile templates end", () => {
  expect(() => compile("{{".repeat(1000))).toThrow(TemplateSyntaxError);
  expect(() => compile(`{{${"(".repeat(500)}1`)).toThrow(TemplateSyntaxError);
  expect(compile("{{.constructor}}")({})).toBe("<no value>");
  expect(compile("{{.__proto__}}")({})).toBe("<no value>");
});
