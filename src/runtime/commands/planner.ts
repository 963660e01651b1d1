// Planning a container whole, with all that it takes to be loaded.
import { facts } from "../facts.ts";
import { type CreateInput, type Plan, planCreate } from "../plan/create.ts";
import { type Blanked, type Template, templateOf } from "../plan/template.ts";
import { compileSeccomp } from "../seccomp.ts";

const filterOf = ({ spec }: CreateInput) => (spec.linux?.seccomp ? compileSeccomp(spec.linux.seccomp) : undefined);

export function planWhole(input: CreateInput): Plan {
  return planCreate({ ...input, seccomp: filterOf(input) }, facts());
}

/** Undefined where its kind can't have one. */
export function planTemplate(blanked: Blanked, input: CreateInput): Template | undefined {
  const { tape } = planCreate({ ...blanked.input, seccomp: filterOf(input) }, blanked.facts);
  return templateOf(tape, blanked.names);
}
