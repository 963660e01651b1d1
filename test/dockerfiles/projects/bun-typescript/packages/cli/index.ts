import { join } from "@words/core";

console.log(join(process.argv.slice(2)), process.release.name);
