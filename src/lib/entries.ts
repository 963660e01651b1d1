import { readdirSync } from "node:fs";

/** Names in a directory; none where it is not there or can't be read. */
export function entriesOf(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
