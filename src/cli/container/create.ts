// Making a container for run and create: the id file, the pull of a missing image, networks beyond the first on old engines.
import { rmSync, statSync, writeFileSync } from "node:fs";
import { isApiFailure, minor } from "../../client/index.ts";
import { type Cli, StatusError } from "../command.ts";
import type { Values } from "../flags.ts";
import { daemonMessage } from "../index.ts";
import { familiarString, parseReference, type Reference, withTag } from "../reference.ts";
import type { ContainerFlags } from "./options.ts";
import { forVersion, type ParsedContainer, parseContainer } from "./parse.ts";

/** An error of run or create with the hint that docker prints. */
export function withHelp(cli: Cli, error: unknown, status = 125): StatusError {
  return new StatusError(status, `${cli.name}: ${daemonMessage(error)}\n\nRun '${cli.path} --help' for more information`);
}

export function parseOrFail(cli: Cli, flags: Values<ContainerFlags>, args: string[]): ParsedContainer {
  try {
    const proxies = cli.config.proxies?.[cli.env.DOCKER_HOST ?? ""] ?? cli.config.proxies?.default;
    return parseContainer(flags, args, cli.changed, cli.env, proxies);
  } catch (error) {
    if (error instanceof StatusError) throw error;
    throw withHelp(cli, error);
  }
}

/** The new container's id. */
export async function createContainer(cli: Cli, flags: Values<ContainerFlags>, parsed: ParsedContainer): Promise<string> {
  const client = await cli.client();
  const { cidfile } = flags;
  if (cidfile) claimIdFile(cidfile);
  try {
    const image = parsed.body.Image ?? "";
    const reference = namedReference(image);
    const pull = async () => {
      const { pullImage } = await import("../commands/pull.ts");
      await pullImage(cli, image, { platform: flags.platform || undefined, quiet: flags.quiet, toStderr: true });
    };
    if (flags.pull === "always") await pull();
    const create = () =>
      client.containers.create((version) => forVersion(parsed, version), {
        name: flags.name || undefined,
        platform: flags.platform || undefined,
      });
    let answer: Awaited<ReturnType<typeof create>>;
    try {
      answer = await create();
    } catch (error) {
      if (!(isApiFailure(error) && error.status === 404 && reference && flags.pull === "missing")) throw error;
      if (!flags.quiet) cli.err(`Unable to find image '${familiarString(withTag(reference))}' locally\n`);
      await pull();
      answer = await create();
    }
    for (const warning of [...parsed.warnings, ...(answer.Warnings ?? []).map((text) => `WARNING: ${text}`)]) cli.err(`${warning}\n`);
    if (parsed.furtherNetworks.length > 0 && minor(await client.version()) < 44) {
      for (const [name, endpoint] of parsed.furtherNetworks) await client.networks.connect(name, answer.Id, endpoint);
    }
    if (cidfile) writeFileSync(cidfile, answer.Id);
    return answer.Id;
  } catch (error) {
    if (cidfile) rmSync(cidfile, { force: true });
    throw error;
  }
}

function claimIdFile(path: string): void {
  let size: number | undefined;
  try {
    size = statSync(path).size;
  } catch {}
  if (size !== undefined) throw new Error(`container ID file found, make sure the other container isn't running or delete ${path}`);
  try {
    writeFileSync(path, "");
  } catch (error) {
    throw new Error(
      `failed to create the container ID file: open ${path}: ${(error as { code?: string }).code === "ENOENT" ? "no such file or directory" : (error as Error).message}`,
    );
  }
}

/** Undefined for an id; throws where it is neither an id nor a name. */
function namedReference(image: string): Reference | undefined {
  if (/^([a-f0-9]{64}|sha256:[a-f0-9]{64})$/.test(image)) return undefined;
  return parseReference(image);
}
