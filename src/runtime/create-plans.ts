// Plans of containers. Planning takes up to ten milliseconds in a process that has just begun to do it, half of one later: it is done once for containers
// of one kind (plan/template.ts), and for the single one only where somebody has to know its steps.
import { facts } from "./facts.ts";
import { type CreateInput, type Plan, planCreate } from "./plan/create.ts";
import { blank, fillIn, type Template, templateOf } from "./plan/template.ts";

/** A plan as it is played, and as it is told. */
export interface Planned {
  encoded: Uint8Array;
  plan(): Plan;
}

/** Each is about 100 KB with what tells it from others. */
const MOST = 8;
const kept = new Map<string, Template | undefined>();

export function containerPlan(input: CreateInput): Planned {
  let plan: Plan | undefined;
  const whole = () => {
    plan ??= planCreate(input, facts());
    return plan;
  };
  return { encoded: fromTemplate(input) ?? whole().tape.encode(), plan: whole };
}

function fromTemplate(input: CreateInput): Uint8Array | undefined {
  try {
    const blanked = blank(input, facts());
    if (!blanked) return undefined;
    const { key, names } = blanked;
    const template = kept.has(key) ? kept.get(key) : templateOf(planCreate(blanked.input, blanked.facts).tape, names);
    kept.delete(key);
    kept.set(key, template);
    for (const oldest of kept.keys()) if (kept.size > MOST) kept.delete(oldest);
    return template && fillIn(template, names);
  } catch {
    // Planning it as it is tells what is wrong with it.
    return undefined;
  }
}
