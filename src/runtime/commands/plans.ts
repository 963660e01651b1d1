// The plan of a container for a command line. Where one of its kind was planned before, the tape is that one's with this one's names (plan/template.ts):
// the planner is loaded only where there is none, or where somebody has to know the steps.
import { BUILD_TIME, COMMIT } from "../../lib/build.ts";
import { kernelRelease } from "../../linux/index.ts";
import { facts } from "../facts.ts";
import type { CreateInput, Plan } from "../plan/create.ts";
import { type Blanked, blank, fillIn } from "../plan/template.ts";
import { defaultPlanDirectory, type PlanFiles, planFiles } from "../plan-files.ts";

/** A plan as it is played, and as it is told. */
export interface Planned {
  encoded: Uint8Array;
  plan(): Promise<Plan>;
}

/** What is run from its source changes without a sign. */
const isReleased = BUILD_TIME !== "unknown";

/** `input` without a filter: that of the specification is compiled where it is needed. */
export async function planContainer(input: CreateInput, files: PlanFiles | undefined = ownFiles()): Promise<Planned> {
  const plan = async () => (await import("./planner.ts")).planWhole(input);
  const encoded = files && (await fromTemplate(input, files));
  if (encoded) return { encoded, plan };
  const whole = await plan();
  return { encoded: whole.tape.encode(), plan: async () => whole };
}

const ownFiles = () => (isReleased ? planFiles(defaultPlanDirectory()) : undefined);

async function fromTemplate(input: CreateInput, files: PlanFiles): Promise<Uint8Array | undefined> {
  // A filter that asks an agent has its names in more places than the tape.
  if (input.spec.linux?.seccomp?.listenerPath) return undefined;
  let blanked: Blanked | undefined;
  try {
    blanked = blank(input, facts());
    if (!blanked) return undefined;
    // Lines, none of which has an end of line in it.
    const parts = [COMMIT, BUILD_TIME, kernelRelease(), JSON.stringify(facts()), JSON.stringify(input.spec.linux?.seccomp), blanked.key];
    const key = parts.join("\n");
    let template = files.find(key);
    if (!template) {
      template = (await import("./planner.ts")).planTemplate(blanked, input);
      if (template) files.keep(key, template);
    }
    return template && fillIn(template, blanked.names);
  } catch {
    // Planning it as it is tells what is wrong with it.
    return undefined;
  }
}
