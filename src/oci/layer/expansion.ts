// How far unpacking may go. What is small when compressed may be huge when it is not, by intent (a decompression bomb): it is refused long before the disk is full.
import { resourceExhausted } from "../../lib/errors.ts";

export interface ExpansionLimit {
  /** So many bytes may come of anything. */
  free: number;
  /** Beyond that, so many times the compressed size: images that are used stay far below, deflate reaches 1032. */
  ratio: number;
}

export const EXPANSION: ExpansionLimit = { free: 4 * 2 ** 30, ratio: 200 };

/** ResourceExhausted where `produced` bytes are more than may come of `consumed` compressed ones. */
export function checkExpansion(what: string, consumed: number, produced: number, { free, ratio }: ExpansionLimit = EXPANSION): void {
  if (produced <= free || produced <= consumed * ratio) return;
  throw resourceExhausted(`${what} expands to more than ${ratio} times its size of ${consumed} bytes: refused as a decompression bomb`);
}
