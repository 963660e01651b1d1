export type Words = readonly string[];

export function join(words: Words): string {
  return words.map((word) => word.toUpperCase()).join(" & ");
}
