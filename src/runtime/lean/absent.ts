// Stands for each module that the lean host cannot run: whoever imports one is Bun's to do.
import { lacking } from "./host.ts";

lacking("a module");
