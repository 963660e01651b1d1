// How this program starts itself again under another of its names (see src/main.ts).

/** Whether this is the compiled executable; run from source, it is Bun with src/main.ts. */
export function compiled(): boolean {
  return process.argv[1]?.startsWith("/$bunfs/") ?? true;
}

/** The command line (executable first) that runs one of the programs: "jubako-shim", "jubakod", … */
export function programCommand(name: string): string[] {
  if (compiled()) return [process.execPath, name];
  return [process.execPath, decodeURIComponent(new URL("../main.ts", import.meta.url).pathname), name];
}
