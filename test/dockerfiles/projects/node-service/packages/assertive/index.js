exports.equal = require("node:assert/strict").equal;
