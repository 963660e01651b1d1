import type { RunningProcess, RuntimeContainer } from "./face.ts";

export async function adoptContainer(
  id: string,
  state: string,
): Promise<{ container: RuntimeContainer; execs: Map<string, RunningProcess> } | undefined> {
  throw new Error(`${id} ${state}`);
}
