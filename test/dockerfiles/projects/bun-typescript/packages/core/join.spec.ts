import { expect, test } from "bun:test";
import { join } from "./index.ts";

test("join", () => expect(join(["a", "b"])).toBe("A & B"));
