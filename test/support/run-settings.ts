// What of an image's config decides how it runs.

const FIELDS = [
  "User",
  "ExposedPorts",
  "Env",
  "Entrypoint",
  "Cmd",
  "Volumes",
  "WorkingDir",
  "Labels",
  "StopSignal",
  "Healthcheck",
  "Shell",
  "OnBuild",
];

/** What all builders must say alike; fields that are empty count as absent. */
export function runSettings(config: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    FIELDS.flatMap((name) => {
      const value = config[name];
      const empty = value === undefined || value === null || value === "" || (typeof value === "object" && Object.keys(value).length === 0);
      return empty ? [] : [[name, value]];
    }),
  );
}
