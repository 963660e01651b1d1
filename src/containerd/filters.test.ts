import { expect, test } from "bun:test";
import { type Field, parseFilters } from "./filters.ts";

const thing = (fields: Record<string, string>): Field => {
  return (path) => fields[path.join("|")];
};
const passes = (filters: string[], fields: Record<string, string>) => parseFilters(filters)(thing(fields));

test("no filter lets everything through", () => {
  expect(passes([], {})).toBe(true);
  expect(passes([""], {})).toBe(true);
});

test("equality, inequality, presence", () => {
  expect(passes(["name==x"], { name: "x" })).toBe(true);
  expect(passes(["name==x"], { name: "y" })).toBe(false);
  expect(passes(["name!=x"], {})).toBe(true);
  expect(passes(["name"], { name: "" })).toBe(true);
  expect(passes(["name"], {})).toBe(false);
});

test("quoted fields and values", () => {
  expect(passes(['labels."com.example/a b"==c'], { "labels|com.example/a b": "c" })).toBe(true);
  expect(passes(['name=="a,\\"b"'], { name: 'a,"b' })).toBe(true);
  expect(passes(["name==docker.io/library/x:1@sha256:00"], { name: "docker.io/library/x:1@sha256:00" })).toBe(true);
});

test("regular expressions, with their own quotes and Go's flags", () => {
  expect(passes(["topic~=^/tasks/"], { topic: "/tasks/exit" })).toBe(true);
  expect(passes(["topic~=|^/tasks/\\d+$|"], { topic: "/tasks/12" })).toBe(true);
  expect(passes(["name~=(?i)ABC"], { name: "xabcx" })).toBe(true);
  expect(() => passes(["name~=("], {})).toThrow("filters: parse error");
});

test("comma is and, several filters are or", () => {
  expect(passes(["a==1,b==2"], { a: "1", b: "2" })).toBe(true);
  expect(passes(["a==1,b==2"], { a: "1" })).toBe(false);
  expect(passes(["a==1", "b==2"], { b: "2" })).toBe(true);
});

test("what is no filter says where", () => {
  for (const bad of ["==x", "a==", "a=b", 'a=="x', "a==x b", "a,,b"]) expect(() => passes([bad], {})).toThrow("filters: parse error");
});
