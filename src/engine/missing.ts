// Endpoints of the Engine API that Jubako does not have, so that a client hears which feature is missing instead of "page not found".
const MISSING: [methods: string, pattern: RegExp, feature: string][] = [
  ["GET", /^\/images\/.+\/attestations$/, "image attestations"],
  ["PUT", /^\/volumes\/[^/]+$/, "cluster volumes"],
  ["GET|POST|DELETE", /^\/plugins\/.+$/, "plugins"],
  ["POST", /^\/swarm\/(init|join)$/, "swarm mode"],
];

/** The sentence for an endpoint that Docker has and Jubako lacks; undefined for what Docker does not have either. */
export function missingFeature(method: string, path: string): string | undefined {
  const found = MISSING.find(([methods, pattern]) => methods.split("|").includes(method) && pattern.test(path));
  return found && `Jubako does not have this feature yet: ${found[2]}`;
}
