// A tape: a flat list of system calls with the data they point to, which native/player.c plays. A builder collects steps, each with the
// reason why it is there; encode() lays them out as the player reads them. Building is pure: a tape can be printed and compared without root.
import { errnoName, syscallName } from "../linux/index.ts";

/** A part of the data, passed as its address. */
export interface Block {
  readonly block: number;
  readonly name: string;
}

/** A word of the data, passed as its value: the result of an earlier step, or a member of a structure the kernel filled. */
export interface Word {
  readonly word: number;
  readonly width: 4 | 8;
  readonly name: string;
}

/** A number with the name that people know it by. */
export interface Named {
  readonly value: number | bigint;
  readonly name: string;
}

/** A string is passed as the address of its NUL-ended bytes. */
export type Arg = number | bigint | string | Block | Word | Named;

export interface Label {
  at: number;
}

export interface StepOptions {
  /** What this step is for, as the object of a sentence: "mount proc on /proc". Steps without one inherit that of the step before. */
  why?: string | undefined;
  /** Continue on any errno, or on these. */
  ignore?: "all" | number[] | undefined;
  /** Jump on any errno, or on these (others end the tape). */
  jump?: { to: Label; on?: number[] } | undefined;
  /** Plays the step again on this errno. */
  retry?: number | undefined;
  /** Where the result goes. */
  store?: Word | undefined;
}

export interface Step {
  readonly op: "syscall" | "jump" | "if" | "compute" | "fail" | "decimal" | "play";
  readonly nr: number;
  readonly args: readonly Arg[];
  readonly why: string;
  readonly options: StepOptions;
  readonly target: Label | undefined;
}

export const COMPARE = { EQ: 0, NE: 1, LT: 2, GE: 3, BITS: 4 } as const;
export const COMPUTE = { ADD: 0, SUB: 1, AND: 2, OR: 3, SHL: 4, SHR: 5 } as const;

/** Descriptors of the player (native/player.c). */
export const TAPE_FD = 60;
export const REPORT_FD = 61;
export const TIMING_FD = 62;
/** Exit status of a player whose tape failed. */
export const STATUS_FAILED = 125;

/** Where an encoded tape's data begin, in which blocks and words lie. */
export function dataOf(encoded: Uint8Array): number {
  return new DataView(encoded.buffer, encoded.byteOffset).getUint32(16, true);
}

const OPS = { syscall: 0, jump: 1, if: 2, compute: 3, fail: 4, decimal: 5, play: 6 } as const;
const HEADER = 32;
const INSTRUCTION = 80;
const PAGE = 4096;
/** The first eight bytes of a tape. */
export const TAPE_MAGIC = 0x5041544a;
export const TAPE_VERSION = 1;

export interface Tape {
  readonly steps: readonly Step[];
  step(nr: number, args: Arg[], options?: StepOptions): void;
  jump(to: Label): void;
  /** Jumps where `a` compares with `b`. */
  when(a: Arg, compare: keyof typeof COMPARE, b: Arg, to: Label): void;
  compute(operation: keyof typeof COMPUTE, a: Arg, b: Arg, store: Word): void;
  /** Ends the tape as if a call had failed with `errno`. */
  fail(errno: Arg, why: string): void;
  /** Goes on with the tape of a descriptor, in place of this one, whose memory stays as it is. */
  play(tape: Arg): void;
  /** Writes `value` in decimal digits and a NUL to `to`, which has room for 21 bytes. */
  decimal(value: Arg, to: Block): void;
  label(): Label;
  place(label: Label): void;
  /** NUL-ended bytes of a string, each string once. */
  text(value: string): Block;
  /** All such strings, with the places of their bytes. */
  texts(): Iterable<[value: string, block: Block]>;
  bytes(value: Uint8Array, name: string): Block;
  /** Zeroed room. */
  room(size: number, name: string): Block;
  word(name: string, width?: 4 | 8): Word;
  /** The word at an offset inside a block. */
  wordAt(block: Block, offset: number, width: 4 | 8, name: string): Word;
  address(word: Word): Block;
  /** The block that begins `offset` bytes into another. */
  within(block: Block, offset: number, name: string): Block;
  /** A NULL-ended vector of strings or blocks, as execve(2) takes it. */
  vector(values: (string | Block)[], name: string): Block;
  /** Words that are addresses, numbers or NULL: struct iovec, sock_fprog and the like. */
  structure(words: (number | bigint | Block | string)[], name: string): Block;
  /** `stack`: the word that receives the player's stack pointer, at which argc, argv and the environment lie. */
  encode(timed?: boolean, stack?: Word): Uint8Array;
}

export function createTape(): Tape {
  const steps: Step[] = [];
  let data = new Uint8Array(8192);
  let used = 16; // nothing lies at offset 0, so that a forgotten address shows
  const relocations: number[] = [];
  const texts = new Map<string, Block>();
  const encoder = new TextEncoder();
  let why = "";

  function allocate(size: number, align: number): number {
    const at = Math.ceil(used / align) * align;
    used = at + size;
    if (used > data.length) {
      // Whole words: it is written by words, too.
      const grown = new Uint8Array(Math.max(Math.ceil(used / 8) * 8, data.length * 2));
      grown.set(data);
      data = grown;
    }
    return at;
  }

  function add(op: Step["op"], nr: number, args: readonly Arg[], options: StepOptions, target?: Label): void {
    if (options.why !== undefined) why = options.why;
    // A string's bytes are laid down now, so that encode() only reads.
    for (const arg of args) if (typeof arg === "string") text(arg);
    steps.push({ op, nr, args, why, options, target });
  }

  function text(value: string): Block {
    let block = texts.get(value);
    if (!block) {
      if (value.includes("\0")) throw new TypeError(`a string for the kernel has a NUL byte in it: ${JSON.stringify(value)}`);
      // Room for the longest UTF-8, of which most is given back.
      const at = allocate(value.length * 3 + 1, 1);
      const { written } = encoder.encodeInto(value, data.subarray(at, at + value.length * 3));
      used = at + written + 1;
      block = { block: at, name: value };
      texts.set(value, block);
    }
    return block;
  }

  function structure(words: (number | bigint | Block | string)[], name: string): Block {
    const resolved = words.map((w) => (typeof w === "string" ? text(w) : w));
    const at = allocate(words.length * 8, 8);
    const view = new Uint32Array(data.buffer);
    resolved.forEach((word, i) => {
      const pointer = typeof word === "object";
      storeWord(view, at / 4 + 2 * i, pointer ? word.block : word);
      if (pointer) relocations.push(at + 8 * i);
    });
    return { block: at, name };
  }

  return {
    steps,
    step: (nr, args, options = {}) => add("syscall", nr, args, options),
    jump: (to) => add("jump", 0, [], {}, to),
    when: (a, compare, b, to) => add("if", COMPARE[compare], [a, b], {}, to),
    compute: (operation, a, b, store) => add("compute", COMPUTE[operation], [a, b], { store }),
    fail: (errno, reason) => add("fail", 0, [errno], { why: reason }),
    play: (tape) => add("play", 0, [tape], {}),
    decimal: (value, to) => add("decimal", 0, [value, to], {}),
    label: () => ({ at: -1 }),
    place(label) {
      label.at = steps.length;
    },
    text,
    texts: () => texts.entries(),
    bytes(value, name) {
      const at = allocate(value.length, 16);
      data.set(value, at);
      return { block: at, name };
    },
    room: (size, name) => ({ block: allocate(size, 16), name }),
    word: (name, width = 8) => ({ word: allocate(width, width), width, name }),
    wordAt: (block, offset, width, name) => ({ word: block.block + offset, width, name }),
    address: (word) => ({ block: word.word, name: `&${word.name}` }),
    within: (block, offset, name) => ({ block: block.block + offset, name }),
    vector: (values, name) => structure([...values, 0], name),
    structure,
    encode(timed = false, stack?: Word) {
      const relocationsAt = HEADER + steps.length * INSTRUCTION;
      const dataAt = Math.ceil((relocationsAt + relocations.length * 4) / 16) * 16;
      const file = new Uint8Array(Math.ceil((dataAt + used) / PAGE) * PAGE);
      const words = new Uint32Array(file.buffer);
      words.set([TAPE_MAGIC, TAPE_VERSION, steps.length, relocations.length, dataAt, timed ? 1 : 0, stack?.word ?? 0]);
      for (let i = 0; i < steps.length; i++) encodeStep(file, words, HEADER + i * INSTRUCTION, steps[i]!, text);
      words.set(relocations, relocationsAt / 4);
      file.set(data.subarray(0, used), dataAt);
      return file;
    },
  };
}

const POLICY = { fail: 0, ignore: 1, ignoreListed: 2, jumpListed: 3, jump: 4 } as const;
const KIND = { immediate: 0, address: 1, word64: 2, word32: 3 } as const;

/** Two 32-bit stores: most values are small, and a bigint costs much more than all the rest of a step. */
function storeWord(words: Uint32Array, at: number, value: number | bigint): void {
  if (typeof value === "bigint") {
    words[at] = Number(value & 0xffffffffn);
    words[at + 1] = Number((value >> 32n) & 0xffffffffn);
    return;
  }
  words[at] = value; // modulo 2^32
  const high = Math.floor(value / 0x100000000);
  if (high) words[at + 1] = high;
}

function encodeStep(file: Uint8Array, words: Uint32Array, at: number, step: Step, text: (value: string) => Block): void {
  const { ignore, jump, store, retry } = step.options;
  const w = at / 4;
  let policy = 0;
  let errnos: number[] | undefined;
  if (ignore === "all") policy = POLICY.ignore;
  else if (ignore) {
    policy = POLICY.ignoreListed;
    errnos = ignore;
  } else if (jump) {
    policy = jump.on ? POLICY.jumpListed : POLICY.jump;
    errnos = jump.on;
  }
  const target = step.target ?? jump?.to;
  if (target) {
    if (target.at < 0) throw new Error(`step ${step.why}: its label was never placed`);
    words[w + 2] = target.at;
  }
  words[w] = OPS[step.op] | (policy << 8) | (store ? (store.width === 8 ? 0x10000 : 0x20000) : 0);
  words[w + 1] = step.nr;
  if (store) words[w + 3] = store.word;
  if (retry) file[at + 22] = retry;
  if (errnos) for (let i = 0; i < errnos.length; i++) file[at + 24 + i] = errnos[i]!;
  const { args } = step;
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    let kind: number = KIND.immediate;
    let value: number | bigint;
    if (typeof arg === "string") {
      kind = KIND.address;
      value = text(arg).block;
    } else if (typeof arg !== "object") value = arg;
    else if ("block" in arg) {
      kind = KIND.address;
      value = arg.block;
    } else if ("word" in arg) {
      kind = arg.width === 8 ? KIND.word64 : KIND.word32;
      value = arg.word;
    } else value = arg.value;
    if (kind) file[at + 16 + i] = kind;
    if (value) storeWord(words, w + 8 + 2 * i, value);
  }
}

function argText(arg: Arg): string {
  if (typeof arg === "string") return JSON.stringify(arg);
  if (typeof arg !== "object") return String(arg);
  return arg.name;
}

const SIGNS = ["==", "!=", "<", ">=", "&"];
const OPERATORS = ["+", "-", "&", "|", "<<", ">>"];

/** One step as strace would print it. */
export function stepText(step: Step): string {
  const args = step.args.map(argText);
  const { store, ignore, jump } = step.options;
  const on = (list: number[]) => list.map((e) => errnoName(e)).join("|");
  const result = store ? `${store.name} = ` : "";
  switch (step.op) {
    case "syscall": {
      const after = ignore === "all" ? "  [any error: go on]" : ignore ? `  [${on(ignore)}: go on]` : "";
      const jumps = jump ? `  [${jump.on ? on(jump.on) : "any error"}: to ${jump.to.at}]` : "";
      return `${result}${syscallName(step.nr)}(${args.join(", ")})${after}${jumps}`;
    }
    case "jump":
      return `to ${step.target?.at}`;
    case "if":
      return `if ${args[0]} ${SIGNS[step.nr]} ${args[1]}: to ${step.target?.at}`;
    case "compute":
      return `${result}${args[0]} ${OPERATORS[step.nr]} ${args[1]}`;
    case "decimal":
      return `${args[1]} = decimal(${args[0]})`;
    case "play":
      return `play(${args[0]})`;
    case "fail":
      return `fail(${args[0]})`;
  }
}
