const test = require("node:test");
const { equal } = require("assertive");
const { greet } = require("greeter");

test("greets", () => equal(greet("you"), "hello you"));
