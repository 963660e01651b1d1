// What a command is: its usage, its arguments and flags as data, and what it does. One file each, below commands/.
import type { Client, ConfigFile } from "../client/index.ts";
import type { Flags, Values } from "./flags.ts";
import type { Output } from "./output.ts";

/** What a command has at hand. */
export interface Cli extends Output {
  /** The program's name in messages. */
  name: string;
  /** The command as it was called: "jubako container ls". */
  path: string;
  env: Record<string, string | undefined>;
  configDir: string;
  config: ConfigFile;
  /** Connects lazily; one client a program run. */
  client(): Promise<Client>;
  /** Name of the context in use. */
  contextName(): string;
  /** Names of the flags that were given. */
  changed: Set<string>;
  isTty(fd: 0 | 1 | 2): boolean;
}

/** How many arguments: [least, most]. */
export type Arguments = readonly [least: number, most: number];
export const none: Arguments = [0, 0];
export const any: Arguments = [0, Number.POSITIVE_INFINITY];
export const exactly = (n: number): Arguments => [n, n];
export const atLeast = (n: number): Arguments => [n, Number.POSITIVE_INFINITY];
export const atMost = (n: number): Arguments => [0, n];

export interface Command<F extends Flags = Flags> {
  /** What follows the command's name: "[OPTIONS] CONTAINER [CONTAINER...]"; further lines are other forms, each with %PATH% for the command. */
  use: string;
  short: string;
  /** A longer text for help, where there is more to say. */
  long?: string;
  args: Arguments;
  flags: F;
  /** False: flags end at the first argument, as for `run`. */
  interspersed?: false;
  /** Exit status; nothing is 0. */
  run(cli: Cli, flags: Values<F>, args: string[]): Promise<number | undefined> | Promise<void>;
}

/** Only so that the flags' types reach `run`. */
export function command<F extends Flags>(definition: Command<F>): Command<F> {
  return definition;
}

/** Ends the program with a status; the message, where not empty, goes to standard error. */
export class StatusError extends Error {
  override name = "StatusError";
  readonly status: number;
  constructor(status: number, message = "") {
    super(message);
    this.status = status;
  }
}
