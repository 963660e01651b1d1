// How the one executable is started from the lean host, in the place of src/lib/program.ts: it is ../jubako, seen from where this program lies.
import { dirname } from "../../lib/paths.ts";
import { readlinkSync } from "../../linux/index.ts";

export const executable = (): string => `${dirname(dirname(readlinkSync("/proc/self/exe")))}/jubako`;

export const programCommand = (name: string): string[] => [executable(), name];
