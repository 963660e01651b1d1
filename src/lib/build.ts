// What the executable was made of, and when. scripts/build.ts puts the values in the place of the variables; run from source, nobody knows.
export const COMMIT = process.env.JUBAKO_COMMIT ?? "unknown";
/** ISO 8601. */
export const BUILD_TIME = process.env.JUBAKO_BUILD_TIME ?? "unknown";
