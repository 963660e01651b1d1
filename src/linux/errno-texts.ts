// The C library's sentences for error numbers, by node:util. The lean host has them written down (scripts/build-lean.ts).
export function errnoTexts(): Map<number, string> {
  // Loading node:util is a sixth of what starting a command costs.
  const known: Map<number, [string, string]> = process.getBuiltinModule("node:util").getSystemErrorMap();
  const texts = new Map<number, string>();
  for (const [number, [, text]] of known) texts.set(-number, text);
  return texts;
}
