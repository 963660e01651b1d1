// Resource limits by their names in Docker's API.
import { invalidArgument } from "../lib/errors.ts";

export interface Ulimit {
  Name: string;
  Soft: number;
  Hard: number;
}

export const ULIMITS: ReadonlySet<string> = new Set(
  "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split(" "),
);

/** InvalidArgument for a limit that the kernel does not have, and for a soft one above the hard one; -1 is no limit. */
export function checkUlimit(limit: Ulimit): Ulimit {
  const { Name, Soft, Hard } = limit;
  if (!ULIMITS.has(Name)) throw invalidArgument(`invalid ulimit type: ${Name}`);
  if (Hard !== -1 && (Soft === -1 || Soft > Hard))
    throw invalidArgument(`ulimit soft limit must be less than or equal to hard limit: ${Soft} > ${Hard}`);
  return limit;
}
