// The build checks that need nothing but the text. Those that need values (undefined variables, relative directories) are made where instructions are evaluated.
import type { Linter } from "./lint.ts";
import type { Dockerfile, Instruction } from "./types.ts";

const RESERVED = new Set(["context", "scratch"]);
const SECRET = /(?:_|^)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)/i;
const PUBLIC = /(?:_|^)public(?:_|$)/i;

function checkSecret(linter: Linter, instruction: Instruction, name: string): void {
  if (SECRET.test(name) && !PUBLIC.test(name))
    linter.warn(
      "SecretsUsedInArgOrEnv",
      instruction.range,
      `Do not use ARG or ENV instructions for sensitive data (${instruction.kind} ${JSON.stringify(name)})`,
    );
}

function checkCasing(file: Dockerfile, linter: Linter): void {
  const all = [...file.globals, ...file.stages.flatMap(({ from, instructions }) => [from, ...instructions])];
  const lower = all.filter(({ keyword }) => keyword === keyword.toLowerCase()).length;
  const upper = all.filter(({ keyword }) => keyword === keyword.toUpperCase()).length;
  const wanted = lower > upper ? "lowercase" : "uppercase";
  for (const { keyword, range } of all)
    if (keyword !== (lower > upper ? keyword.toLowerCase() : keyword.toUpperCase()))
      linter.warn("ConsistentInstructionCasing", range, `Command '${keyword}' should match the case of the command majority (${wanted})`);
}

function checkDescription(linter: Linter, what: string, names: string[], instruction: Instruction): void {
  const last = instruction.comments.at(-1);
  if (!last || names.length === 0 || names.includes(last.split(" ")[0]!)) return;
  linter.warn(
    "InvalidDefinitionDescription",
    instruction.range,
    `Comment for ${what} should follow the format: \`# ${names.length > 1 ? "<arg_key>" : names[0]} <description>\``,
  );
}

function checkExpose(linter: Linter, values: readonly string[], instruction: Instruction): void {
  for (const value of values) {
    const slash = value.indexOf("/");
    const protocol = slash < 0 ? "" : value.slice(slash + 1);
    if (protocol !== protocol.toLowerCase() && !protocol.includes("$"))
      linter.warn("ExposeProtoCasing", instruction.range, `Defined protocol '${value}' in EXPOSE instruction should be lowercase`);
    if (/:/.test(value.replace(/\$\{[^}]*\}/g, "")))
      linter.warn(
        "ExposeInvalidFormat",
        instruction.range,
        `EXPOSE instruction should not define an IP address or host-port mapping, found '${value}'`,
      );
  }
}

export function checkText(file: Dockerfile, linter: Linter): void {
  for (const range of file.emptyContinuations) linter.warn("NoEmptyContinuation", range, "Empty continuation line");
  checkCasing(file, linter);
  const names = new Set<string>();
  for (const arg of file.globals) {
    for (const { name } of arg.pairs) checkSecret(linter, arg, name);
    checkDescription(
      linter,
      "ARG",
      arg.pairs.map(({ name }) => name),
      arg,
    );
  }
  for (const { from, name, instructions } of file.stages) {
    const { range, written, platform, keyword } = from;
    if (written && name !== undefined) {
      if (written.name !== name) linter.warn("StageNameCasing", range, `Stage name '${written.name}' should be lowercase`);
      const same = (word: string) => (word === word.toLowerCase() ? "lower" : word === word.toUpperCase() ? "upper" : "mixed");
      if (same(written.as) !== same(keyword))
        linter.warn("FromAsCasing", range, `'${written.as}' and '${keyword}' keywords' casing do not match`);
      if (RESERVED.has(name))
        linter.warn("ReservedStageName", range, `Stage name should not use the same name as reserved stage ${JSON.stringify(name)}`);
      if (names.has(name))
        linter.warn("DuplicateStageName", range, `Duplicate stage name ${JSON.stringify(name)}, stage names should be unique`);
      names.add(name);
      checkDescription(linter, "build stage", [name], from);
    }
    if (platform !== undefined && /^\$(?:TARGETPLATFORM|\{TARGETPLATFORM\})$/.test(platform))
      linter.warn(
        "RedundantTargetPlatform",
        range,
        `Setting platform to predefined ${platform} in FROM is redundant as this is the default behavior`,
      );
    // A stage that is one of several for one platform each has a reason.
    const forOne = platform?.split("/").some((part) => part.length > 2 && part !== "linux" && name?.includes(part.toLowerCase()));
    if (platform !== undefined && !platform.includes("$") && !forOne)
      linter.warn(
        "FromPlatformFlagConstDisallowed",
        range,
        `FROM --platform flag should not use constant value ${JSON.stringify(platform)}`,
      );
    for (const instruction of instructions) {
      if (instruction.kind === "MAINTAINER")
        linter.warn("MaintainerDeprecated", instruction.range, "Maintainer instruction is deprecated in favor of using label");
      if ((instruction.kind === "ENV" || instruction.kind === "LABEL") && instruction.legacy)
        linter.warn(
          "LegacyKeyValueFormat",
          instruction.range,
          `"${instruction.kind} key=value" should be used instead of legacy "${instruction.kind} key value" format`,
        );
      if (instruction.kind === "ENV" || instruction.kind === "ARG")
        for (const pair of instruction.pairs) checkSecret(linter, instruction, pair.name);
      if (instruction.kind === "ARG")
        checkDescription(
          linter,
          "ARG",
          instruction.pairs.map((pair) => pair.name),
          instruction,
        );
      if (instruction.kind === "EXPOSE") checkExpose(linter, instruction.values, instruction);
    }
  }
}
