// The one executable. It behaves by the name it is called by (dist/bin/ has a link for each) or, called `jubako`, by its first argument where
// that is one of the names: `jubako jubakod -H …`. Each program is loaded only when it runs: start-up time is the sum of what is imported here.
import { basename } from "./lib/paths.ts";

/** A program's exit status. */
type Main = (argv: string[]) => Promise<number>;

const programs: Record<string, () => Promise<Main>> = {
  jubako: async () => (await import("./cli/index.ts")).main,
  jubakod: async () => (await import("./engine/main.ts")).main,
  "jubako-containerd": async () => (await import("./containerd/main.ts")).main,
  "jubako-shim": async () => (await import("./shim/main.ts")).main,
  "containerd-shim-jubako-v1": async () => (await import("./shim/main.ts")).main,
  "jubako-runtime": async () => (await import("./runtime/cli.ts")).main,
  "jubako-registry": async () => (await import("./registry/main.ts")).main,
};

async function start(): Promise<void> {
  let args = process.argv.slice(2);
  let name = basename(process.argv0);
  if (!(name in programs)) name = "jubako";
  if (name === "jubako" && args[0] !== undefined && args[0] !== "jubako" && args[0] in programs) {
    name = args[0];
    args = args.slice(1);
  }
  const main = await programs[name]!();
  process.exitCode = await main(args);
}

start().catch((error: unknown) => {
  process.stderr.write(`${basename(process.argv0)}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  process.exit(1);
});
