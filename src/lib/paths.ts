// Paths as text, as node:path has them, which is one more module to load for a command that has nothing else to do with it.

/** Without slashes at its end. A first regular expression costs a command as much as opening a file. */
function trimmed(path: string): string {
  let end = path.length;
  while (end > 0 && path.charCodeAt(end - 1) === 0x2f) end--;
  return path.slice(0, end);
}

/** What stands before the last part: "/" for "/a", "." for "a". */
export function dirname(path: string): string {
  const end = trimmed(path).lastIndexOf("/");
  if (end < 0) return path.startsWith("/") ? "/" : ".";
  return trimmed(path.slice(0, end)) || "/";
}

/** The last part. */
export function basename(path: string): string {
  const whole = trimmed(path);
  return whole.slice(whole.lastIndexOf("/") + 1);
}

/** Absolute, without "." and "..", and without a slash at its end. */
export function resolve(path: string): string {
  const parts: string[] = [];
  for (const part of (path.startsWith("/") ? path : `${process.cwd()}/${path}`).split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}`;
}
