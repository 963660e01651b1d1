// The native addon, run from source; the executable has addon-embedded.ts in its place, the lean host src/runtime/lean/addon.ts.
import type { Binding } from "./binding.ts";
import { bindingOf, type Native } from "./native.ts";

export const addon: Binding = bindingOf(require("../../build/jubako.node") as Native);
