// How a build is shown: redrawn on a terminal, with every stage that runs; plain lines elsewhere; JSON for programs.
import type { StatusResponse } from "../../client/index.ts";
import { humanSize } from "../units.ts";
import type { Change, Part, Step, Track } from "./track.ts";

export interface Display {
  update(update: StatusResponse): void;
  /** All is said; `failed`: the build has no result. */
  finish(failed: boolean): void;
}

const seconds = (from: number | undefined, to: number | undefined) =>
  `${(Math.max(0, (to ?? Date.now()) - (from ?? Date.now())) / 1000).toFixed(1)}s`;

function partText(part: Part): string {
  const size =
    part.total > 0 ? ` ${humanSize(part.current)} / ${humanSize(part.total)}` : part.current > 0 ? ` ${humanSize(part.current)}` : "";
  return `${part.name}${size}`;
}

const clean = (text: string) => text.replace(/[\x00-\x08\x0b-\x1f\x7f]|\x1b\[[0-9;?]*[A-Za-z]/g, "").replaceAll("\t", "    ");

/** "#3 [2/4] RUN make" and what it says, as it comes. */
export function plainDisplay(track: Track, write: (text: string) => void): Display {
  let last: Step | undefined;
  const shown = new Set<Step>();
  const over = new Set<Step>();
  const parts = new Map<string, number>();
  const turn = (step: Step) => {
    if (last === step) return;
    if (last) write("\n");
    last = step;
    write(shown.has(step) ? `#${step.number} ...\n` : `#${step.number} ${step.name}\n`);
    shown.add(step);
  };
  const tell = (change: Change) => {
    const { step } = change;
    if (step.number === 0 || over.has(step)) return;
    if ("line" in change) {
      turn(step);
      write(`#${step.number} ${((change.line.time - (step.started ?? change.line.time)) / 1000).toFixed(3)} ${change.line.text}\n`);
    } else if ("part" in change) {
      const key = `${step.digest} ${change.part.id}`;
      const now = Date.now();
      const done = change.part.completed !== undefined;
      if (!done && now - (parts.get(key) ?? 0) < 1000) return;
      parts.set(key, now);
      turn(step);
      write(`#${step.number} ${partText(change.part)}${done ? ` ${seconds(change.part.started, change.part.completed)} done` : ""}\n`);
    } else if (step.completed !== undefined) {
      turn(step);
      if (step.rest) write(`#${step.number} ${step.rest}\n`);
      if (step.error) write(`#${step.number} ERROR: ${step.error}\n`);
      else write(step.cached ? `#${step.number} CACHED\n` : `#${step.number} DONE ${seconds(step.started, step.completed)}\n`);
      write("\n");
      over.add(step);
      last = undefined;
    } else if (!shown.has(step)) turn(step);
  };
  return {
    update(update) {
      for (const change of track.take(update)) tell(change);
    },
    finish() {
      if (last) write("\n");
    },
  };
}

export async function rawDisplay(track: Track, write: (text: string) => void): Promise<Display> {
  const [{ create, toJson }, { StatusResponseSchema }] = await Promise.all([
    import("@bufbuild/protobuf"),
    import("../../gen/moby/buildkit/v1_pb.ts"),
  ]);
  return {
    update(update) {
      track.take(update);
      write(`${JSON.stringify(toJson(StatusResponseSchema, create(StatusResponseSchema, update)))}\n`);
    },
    finish() {},
  };
}

export function quietDisplay(track: Track): Display {
  return { update: (update) => void track.take(update), finish() {} };
}

const RED = "\x1b[31m";
const BLUE = "\x1b[34m";
const FAINT = "\x1b[2m";
const OFF = "\x1b[0m";
/** Lines of output below a step that runs. */
const TAIL = 6;
const REDRAW_MS = 100;

interface Row {
  text: string;
  right: string;
  colour: string;
}

function rowsOf(step: Step, room: number): Row[] {
  const mark = step.cached ? "CACHED " : step.error ? "ERROR " : "";
  const done = step.completed !== undefined;
  const colour = step.error ? RED : done ? BLUE : "";
  const rows: Row[] = [{ text: ` => ${mark}${clean(step.name)}`, right: seconds(step.started, step.completed), colour }];
  for (const part of step.parts.values()) {
    if (done && part.total === 0 && part.current === 0) continue;
    rows.push({
      text: ` => => ${clean(partText(part))}`,
      right: seconds(part.started, part.completed),
      colour: part.completed ? BLUE : "",
    });
  }
  if (!done) {
    const tail = [...step.lines.slice(-TAIL).map(({ text }) => text), ...(step.rest ? [step.rest] : [])].slice(-Math.min(TAIL, room));
    for (const text of tail) rows.push({ text: ` => => # ${clean(text)}`, right: "", colour: FAINT });
  }
  return rows;
}

export function terminalDisplay(track: Track, write: (text: string) => void, size: () => { w: number; h: number }): Display {
  const begun = Date.now();
  let drawn = 0;
  let dirty = true;
  const draw = (end: boolean, failed = false) => {
    const { w, h } = size();
    const steps = [...track.steps.values()].filter(({ number }) => number > 0).sort((a, b) => a.number - b.number);
    const completed = steps.filter((step) => step.completed !== undefined).length;
    const title = `[+] Building ${seconds(begun, undefined)} (${completed}/${track.steps.size})${end ? (failed ? " FAILED" : " FINISHED") : ""}`;
    const running = steps.filter((step) => step.completed === undefined).length;
    const room = Math.max(1, Math.floor((h - 2 - steps.length) / Math.max(1, running)));
    let rows = steps.flatMap((step) => rowsOf(step, end ? 0 : room));
    // What is over goes first where the terminal is too small for all.
    if (!end && rows.length > h - 2) {
      const live = steps.filter((step) => step.completed === undefined).flatMap((step) => rowsOf(step, room));
      const over = steps.filter((step) => step.completed !== undefined).flatMap((step) => rowsOf(step, 0));
      rows = [...over.slice(-Math.max(0, h - 2 - live.length)), ...live].slice(-(h - 2));
    }
    let text = drawn > 0 ? `\x1b[${drawn}A\r\x1b[J` : "";
    text += `${title}\n`;
    for (const { text: left, right, colour } of rows) {
      const width = w - right.length - 1;
      const cut = left.length > width ? left.slice(0, Math.max(0, width)) : left;
      text += `${colour}${cut}${" ".repeat(Math.max(1, w - cut.length - right.length))}${right}${colour ? OFF : ""}\n`;
    }
    drawn = rows.length + 1;
    write(text);
  };
  write("\x1b[?25l");
  const timer = setInterval(() => {
    const running = [...track.steps.values()].some((step) => step.started !== undefined && step.completed === undefined);
    if (dirty || running) draw(false);
    dirty = false;
  }, REDRAW_MS);
  return {
    update(update) {
      if (track.take(update).length > 0) dirty = true;
    },
    finish(failed) {
      clearInterval(timer);
      draw(true, failed);
      write("\x1b[?25h");
    },
  };
}
