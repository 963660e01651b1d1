/** A name that no one else has, as BuildKit's clients make them: 25 letters and digits. */
export const randomName = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(13)), (byte) => byte.toString(16).padStart(2, "0"))
    .join("")
    .slice(0, 25);
