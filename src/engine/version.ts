// The Engine API versions that are spoken, and what the engine calls itself.
export const VERSION = "0.1.0";
/** Minor numbers of 1.x. */
export const MIN_API = 24;
export const MAX_API = 56;
export const API_VERSION = `1.${MAX_API}`;
export const MIN_API_VERSION = `1.${MIN_API}`;
