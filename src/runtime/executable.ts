// A static executable of its own, made of the player and a tape.
import { playerBytes } from "./player-file.ts";

// struct Elf64_Ehdr and Elf64_Phdr (elf(5)).
const ELF = { phoff: 32, flags: 48, phentsize: 54, phnum: 56 } as const;
const PT_LOAD = 1;
const PT_GNU_STACK = 0x6474e551;
const READ_WRITE = 6;
/** native/player.c */
const OWN_TAPE = 0x10000000;
const PAGE = 4096;

/**
 * The executable: the player, or a program that it was linked before, with the tape behind it, which one more segment maps in the place of the header
 * that asks for a stack without execution (the kernel's default).
 */
export function executableOf(tape: Uint8Array, player: Uint8Array = playerBytes()): Uint8Array {
  const at = Math.ceil(player.length / PAGE) * PAGE;
  const file = new Uint8Array(at + tape.length);
  file.set(player);
  file.set(tape, at);
  const view = new DataView(file.buffer);
  view.setUint32(ELF.flags, tape.length / PAGE, true);
  const size = view.getUint16(ELF.phentsize, true);
  let header = Number(view.getBigUint64(ELF.phoff, true));
  for (let left = view.getUint16(ELF.phnum, true); left > 0; left--, header += size) {
    if (view.getUint32(header, true) !== PT_GNU_STACK) continue;
    view.setUint32(header, PT_LOAD, true);
    view.setUint32(header + 4, READ_WRITE, true);
    [at, OWN_TAPE, OWN_TAPE, tape.length, tape.length, PAGE].forEach((value, i) => {
      view.setBigUint64(header + 8 + 8 * i, BigInt(value), true);
    });
    return file;
  }
  throw new Error("the player has no segment to spare");
}
