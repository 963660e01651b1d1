// Where the lean host begins. A module of its own: what others make as they are loaded takes the globals to be there.
import "./globals.ts";

void import("./program.ts");
