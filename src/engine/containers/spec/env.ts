// The environment of a container's process: Docker's defaults, then what image and user say.
export const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Later ones replace earlier ones of the same name, in their place; a bare "NAME" removes it, as docker does. */
export function mergeEnv(base: string[], over: string[]): string[] {
  const result = [...base];
  const at = new Map(base.map((each, index) => [nameOf(each), index]));
  const removed = new Set<number>();
  for (const each of over) {
    const name = nameOf(each);
    const index = at.get(name);
    if (!each.includes("=")) {
      if (index !== undefined) removed.add(index);
      continue;
    }
    if (index === undefined) at.set(name, result.push(each) - 1);
    else {
      result[index] = each;
      removed.delete(index);
    }
  }
  return removed.size === 0 ? result : result.filter((_, index) => !removed.has(index));
}

function nameOf(entry: string): string {
  const equals = entry.indexOf("=", 1);
  return equals < 0 ? entry : entry.slice(0, equals);
}

export function processEnv(options: { hostname: string; tty: boolean; env: string[]; home: string }): string[] {
  const base = [`PATH=${DEFAULT_PATH}`, `HOSTNAME=${options.hostname}`, ...(options.tty ? ["TERM=xterm"] : [])];
  const merged = mergeEnv(base, options.env);
  if (!merged.some((each) => each.startsWith("HOME="))) merged.push(`HOME=${options.home}`);
  return merged;
}
