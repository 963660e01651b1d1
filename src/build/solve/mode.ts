// What chmod makes of a mode: a number, or chmod(1)'s words ("u+x,go-w", "a=rX").
import { invalidArgument } from "../../lib/errors.ts";

const WHO: Record<string, number> = { u: 0o4700, g: 0o2070, o: 0o1007, a: 0o7777 };
const CLAUSE = /^([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)$/;

/** `mode` < 0 and "" change nothing: then undefined. InvalidArgument where the text is no mode. */
export function modeChange(mode: number, text: string): ((mode: number, directory: boolean) => number) | undefined {
  if (text === "") return mode < 0 ? undefined : () => mode & 0o7777;
  if (/^[0-7]{1,5}$/.test(text)) {
    const fixed = Number.parseInt(text, 8);
    if (fixed > 0o7777) throw invalidArgument(`invalid mode ${text}`);
    return () => fixed;
  }
  const clauses = text.split(",").map((clause) => {
    const match = CLAUSE.exec(clause);
    if (!match) throw invalidArgument(`invalid mode ${text}`);
    const who = match[1] === "" ? WHO.a! : [...match[1]!].reduce((mask, each) => mask | WHO[each]!, 0);
    return { who, changes: [...match[2]!.matchAll(/([-+=])([rwxXst]*|[ugo])/g)].map(([, sign, what]) => ({ sign: sign!, what: what! })) };
  });
  return (before, directory) => {
    let now = before;
    for (const { who, changes } of clauses) {
      for (const { sign, what } of changes) {
        let bits = 0;
        for (const letter of what) {
          if (letter === "r") bits |= 0o444;
          else if (letter === "w") bits |= 0o222;
          else if (letter === "x" || (letter === "X" && (directory || (now & 0o111) !== 0))) bits |= 0o111;
          else if (letter === "s") bits |= 0o6000;
          else if (letter === "t") bits |= 0o1000;
          else if (letter === "u") bits |= ((now >> 6) & 7) * 0o111;
          else if (letter === "g") bits |= ((now >> 3) & 7) * 0o111;
          else if (letter === "o") bits |= (now & 7) * 0o111;
        }
        bits &= who;
        if (sign === "+") now |= bits;
        else if (sign === "-") now &= ~bits;
        else now = (now & ~(who & 0o777)) | bits;
      }
    }
    return now & 0o7777;
  };
}
