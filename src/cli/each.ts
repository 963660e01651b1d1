// The same request for several objects: each success is printed, failures are gathered and told at the end, as docker does.
import { type Cli, StatusError } from "./command.ts";
import { daemonMessage } from "./index.ts";

/** All at once, printed in the order given. */
export async function eachAtOnce(cli: Cli, names: readonly string[], request: (name: string) => Promise<unknown>): Promise<number> {
  const outcomes = names.map((name) =>
    request(name).then(
      () => ({ name, error: undefined }),
      (error: unknown) => ({ name, error }),
    ),
  );
  const failures: string[] = [];
  for (const outcome of outcomes) {
    const { name, error } = await outcome;
    if (error === undefined) cli.out(`${name}\n`);
    else failures.push(daemonMessage(error));
  }
  return finish(failures);
}

/** One after the other. `request` gives what is to be printed, where it is not the name. */
export async function eachInTurn(
  cli: Cli,
  names: readonly string[],
  request: (name: string) => Promise<string | undefined> | Promise<void>,
): Promise<number> {
  const failures: string[] = [];
  for (const name of names) {
    try {
      const text = (await request(name)) as string | undefined;
      cli.out(text ?? `${name}\n`);
    } catch (error) {
      failures.push(daemonMessage(error));
    }
  }
  return finish(failures);
}

function finish(failures: string[]): number {
  if (failures.length === 0) return 0;
  throw new StatusError(1, failures.join("\n"));
}
