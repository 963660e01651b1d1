// What stop and restart take alike: the signal, and how long to wait before killing.
import type { Cli } from "./command.ts";
import { hidden, int, string } from "./flags.ts";

export const stopFlags = {
  signal: string("s", "Signal to send to the container"),
  timeout: int("t", "Seconds to wait before killing the container"),
  time: hidden(int("", "Seconds to wait before killing the container")),
};

export function stopOptions(
  cli: Pick<Cli, "changed">,
  flags: { signal: string; timeout: number; time: number },
): { t: number | undefined; signal: string | undefined } {
  if (cli.changed.has("time") && cli.changed.has("timeout"))
    throw new Error("conflicting options: cannot specify both --timeout and --time");
  const t = cli.changed.has("time") ? flags.time : cli.changed.has("timeout") ? flags.timeout : undefined;
  return { t, signal: flags.signal || undefined };
}
