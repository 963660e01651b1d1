import { cpSync, mkdirSync, readFileSync } from "node:fs";

const { dependencies } = JSON.parse(readFileSync("package.json", "utf8"));
mkdirSync("node_modules", { recursive: true });
for (const name of Object.keys(dependencies)) cpSync(`vendor/${name}`, `node_modules/${name}`, { recursive: true });
