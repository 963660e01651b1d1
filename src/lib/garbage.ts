// Large buffers are garbage that JavaScriptCore sees late: a stream of some hundred megabytes leaves a hundred of them before it looks. A look takes some
// milliseconds, so that one now and then costs a percent or two.

/** The same pieces; garbage is collected each time so many bytes have passed. */
export async function* collecting(pieces: AsyncIterable<Uint8Array>, bytes: number): AsyncGenerator<Uint8Array, void> {
  let passed = 0;
  for await (const piece of pieces) {
    yield piece;
    passed += piece.length;
    if (passed < bytes) continue;
    passed = 0;
    Bun.gc(true);
  }
}
