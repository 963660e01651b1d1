exports.name = "lib of " + require("../../package.json").name;
