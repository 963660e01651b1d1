import { afterAll, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { inputOf } from "./commands/create.ts";
import { parseFlags } from "./commands/flags.ts";
import { planContainer } from "./commands/plans.ts";
import { type PlanFiles, planFiles } from "./plan-files.ts";
import { exampleSpec } from "./spec.ts";

const directory = mkdtempSync(`${tmpdir()}/jubako-plans-`);
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const location = (id: string) => ({
  version: 1 as const,
  directories: { cpu: `/sys/fs/cgroup/cpu/${id}`, "": `/sys/fs/cgroup/unified/${id}` },
});
function input(id: string, args = ["true"]) {
  const spec = exampleSpec();
  spec.process!.args = args;
  spec.hostname = id;
  return inputOf(id, `/bundles/${id}`, spec, parseFlags([], {}), 0, location(id), true);
}
/** What is asked of the files. */
function watched(): { files: PlanFiles; found: boolean[] } {
  const files = planFiles(`${directory}/plans`);
  const found: boolean[] = [];
  return {
    found,
    files: {
      ...files,
      find(key) {
        const template = files.find(key);
        found.push(template !== undefined);
        return template;
      },
    },
  };
}
const file = () => `${directory}/plans/${readdirSync(`${directory}/plans`)[0]}`;

test("the second container of a kind is not planned: its tape is the first one's, with its own names", async () => {
  const { files, found } = watched();
  for (const id of ["first", "second-one", "third"]) {
    const { encoded, plan } = await planContainer(input(id), files);
    expect(Buffer.compare(encoded, (await plan()).tape.encode())).toBe(0);
  }
  expect((await planContainer(input("fourth", ["sh"]), files)).encoded.length).toBeGreaterThan(0);
  // Names of other lengths are laid out otherwise, other programs are other plans.
  expect(found).toEqual([false, false, true, false]);
  for (const id of ["FIRST", "SECOND-ONE"]) {
    const { encoded, plan } = await planContainer(input(id), files);
    expect(Buffer.compare(encoded, (await plan()).tape.encode())).toBe(0);
  }
  expect(found.slice(4)).toEqual([true, true]);
});

test("a file that others can write, or that is broken, is not taken", async () => {
  rmSync(`${directory}/plans`, { recursive: true, force: true });
  const { files, found } = watched();
  const again = async () => {
    const { encoded, plan } = await planContainer(input("again"), files);
    expect(Buffer.compare(encoded, (await plan()).tape.encode())).toBe(0);
  };
  await again();
  chmodSync(file(), 0o622);
  await again();
  await again();
  const whole = readFileSync(file());
  truncateSync(file(), whole.length - 1);
  await again();
  writeFileSync(file(), whole.fill(255, 4, 12));
  await again();
  writeFileSync(file(), "");
  await again();
  await again();
  expect(found).toEqual([false, false, true, false, false, false, true]);
});
