// Signals by name or number, as `docker kill -s` takes them.
import { invalidArgument } from "../../lib/errors.ts";
import { signalOf } from "../../linux/index.ts";

const SIGRTMIN = 34;
const SIGRTMAX = 64;

/** "SIGTERM", "term", "15", "RTMIN+3" → number; InvalidArgument else. */
export function signalNumber(text: string): number {
  const name = text.toUpperCase().replace(/^SIG/, "");
  if (/^\d+$/.test(name)) {
    const number = Number(name);
    if (number >= 1 && number <= SIGRTMAX) return number;
    throw invalidArgument(`Invalid signal: ${text}`);
  }
  const known = signalOf(`SIG${name}`);
  if (known !== undefined) return known;
  const realTime = /^RT(MIN|MAX)(?:([+-])(\d+))?$/.exec(name);
  if (realTime) {
    const base = realTime[1] === "MIN" ? SIGRTMIN : SIGRTMAX;
    const number = base + (realTime[2] === "-" ? -1 : 1) * Number(realTime[3] ?? 0);
    if (number >= SIGRTMIN && number <= SIGRTMAX) return number;
  }
  throw invalidArgument(`Invalid signal: ${text}`);
}
