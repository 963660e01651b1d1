// A name for a file of what is kept for the next process. Whoever reads the file compares what it was kept for.

/** Times 31 and the next word: an interpreter takes three times as long to call Math.imul. */
export function hashOf(bytes: Uint8Array): number {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  let hash = bytes.length;
  for (let i = 0; i < words.length; i++) hash = ((hash << 5) - hash + words[i]!) | 0;
  return hash >>> 0;
}
