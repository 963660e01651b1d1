// The text of --help, laid out as docker's: usage, what it does, other names, and flags in columns wrapped at 80.
import type { Command } from "./command.ts";
import { type Entry, type Group, isGroup, sections } from "./commands.ts";
import type { Flag, Flags } from "./flags.ts";

const WIDTH = 79;

export function usageOf(command: Command, path: string): string {
  const [first, ...others] = command.use.split("\n");
  return [`${path}${first ? ` ${first}` : ""}`, ...others.map((form) => `\t${form.replace("%PATH%", path)}`)].join("\n");
}

export function commandHelp(command: Command, path: string, aliases: string[]): string {
  let text = `Usage:  ${usageOf(command, path)}\n\n${command.long ?? command.short}\n`;
  if (aliases.length > 1) text += `\nAliases:\n  ${aliases.join(", ")}\n`;
  const options = flagTable(command.flags);
  if (options) text += `\nOptions:\n${options}`;
  return text;
}

function listOf(entries: Record<string, Entry>): string {
  return Object.entries(entries)
    .filter(([, entry]) => isGroup(entry) || !entry.hidden)
    .map(([name, entry]) => `  ${name.padEnd(11)} ${entry.short}\n`)
    .join("");
}

export function groupHelp(group: Group, path: string): string {
  return `Usage:  ${path} COMMAND\n\n${group.short}\n\nCommands:\n${listOf(group.children)}\nRun '${path} COMMAND --help' for more information on a command.\n`;
}

export function rootHelp(name: string, globals: Flags): string {
  let text = `Usage:  ${name} [OPTIONS] COMMAND\n\nThe Docker stack in TypeScript, layer by layer\n`;
  for (const { title, entries } of sections) text += `\n${title}:\n${listOf(entries)}`;
  return `${text}\nGlobal Options:\n${flagTable(globals)}\nRun '${name} COMMAND --help' for more information on a command.\n`;
}

export function flagTable(flags: Flags): string {
  const rows = Object.entries(flags as Record<string, Flag<unknown>>)
    .filter(([, flag]) => !flag.hidden)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, flag]) => {
      const left = `${flag.short ? `  -${flag.short}, ` : "      "}--${name}${flag.type ? ` ${flag.type}` : ""}`;
      const shown = flag.shownDefault && flag.shownDefault !== "false" ? ` (default ${flag.shownDefault})` : "";
      return { left, right: flag.help + shown };
    });
  const column = Math.max(0, ...rows.map(({ left }) => left.length)) + 3;
  return rows.map(({ left, right }) => `${left.padEnd(column)}${wrap(right, column)}\n`).join("");
}

function wrap(text: string, indent: number): string {
  const room = Math.max(24, WIDTH - indent);
  const lines: string[] = [];
  for (const paragraph of text.split("\n")) {
    let line = "";
    for (const word of paragraph.split(" ")) {
      if (line !== "" && line.length + 1 + word.length > room) {
        lines.push(line);
        line = word;
      } else {
        line = line === "" ? word : `${line} ${word}`;
      }
    }
    lines.push(line);
  }
  return lines.join(`\n${" ".repeat(indent)}`);
}
