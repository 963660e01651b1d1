/** What the runtime's launcher, or the lean host where it leaves a command to Bun, puts into Bun's environment. */
export const RUNTIME_SETTINGS = ["BUN_JSC_useJIT=0"];
