throw new Error("not here");
