// Annotations of config.json that our layers give each other.

/**
 * "true": standard input of the container's processes outlives its writers until it is closed by CloseIO, as its manager may be killed and come
 * back. Without it, input ends with its first writer, as under containerd's own shim: not every manager calls CloseIO.
 */
export const KEEP_STDIN = "jubako.io/keep-stdin";
