// Layers of a real system: src/containerd/diff/round-trip.test.ts, against umoci and containerd, on Debian as debootstrap makes it, with changes to it.
import { test } from "bun:test";
import { debianFiles, makeBases } from "./bases/index.ts";

if (makeBases()) {
  process.env.JUBAKO_TEST_ROOTFS = debianFiles;
  await import("../src/containerd/diff/round-trip.test.ts");
} else test.skip("a whole system", () => {});
