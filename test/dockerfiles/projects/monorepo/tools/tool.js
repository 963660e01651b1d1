console.log("a tool");
