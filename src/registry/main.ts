// jubako-registry: the distribution server.

/** Says that it is not there yet; exit status 1. */
export async function main(_argv: string[]): Promise<number> {
  process.stderr.write(
    "jubako-registry: the distribution server is not part of this version; it comes with a later one (see the status table in README.md)\n",
  );
  return 1;
}
