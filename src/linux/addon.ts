// The native addon, run from source; the executable has addon-embedded.ts in its place.
export const addon: unknown = require("../../build/jubako.node");
