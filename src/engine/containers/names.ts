// Names for containers that were given none: adjective_noun, in the manner of Docker's, from a list of our own. The nouns are people who shaped
// computing, and boxes.
import { randomInt } from "node:crypto";

const ADJECTIVES =
  "agile amber ample apt austere balmy blithe bold brave breezy brisk calm candid cheery civil clever cosmic cozy crisp curious dapper daring deft eager earnest easy elated epic fair fancy fearless fluent frank free fresh frugal gallant gentle gifted glad golden graceful grand handy happy hardy hearty honest humble ideal jolly jovial keen kind lively loyal lucid lucky mellow merry mighty mindful modest neat nimble noble patient peppy placid plucky polite proud quick quiet quirky rapid ready regal robust serene sharp shiny simple sleek smart snappy snug sober solid spry stable steady stellar stoic sturdy sunny supple sure swift tender tidy tranquil trusty upbeat valiant vivid warm wise witty zany zesty".split(
    " ",
  );
const NOUNS =
  "ada allen babbage backus bento blackwell boole brooks cerf codd conway corbato curry dahl diffie dijkstra engelbart erlang floyd frege gosper haskell hamming hamilton hellman hoare hopper huffman iverson jubako karp kay kernighan kilburn kleene knuth lamport lampson lehmer liskov lovelace mauchly mccarthy merkle milner minsky moore naur newell noyce nygaard papert perlis perlman postel pratt rabin reynolds ritchie rivest sammet scott shamir shannon simon steele strachey sussman sutherland tarjan thacker thompson torvalds turing ulam vonneumann wegner wilkes wirth yao zuse".split(
    " ",
  );

/** A name that `taken` does not know; after many tries with a digit, as Docker does. */
export function randomName(taken: (name: string) => boolean): string {
  for (let tries = 0; ; tries++) {
    const base = `${ADJECTIVES[randomInt(ADJECTIVES.length)]}_${NOUNS[randomInt(NOUNS.length)]}`;
    const name = tries < 6 ? base : `${base}${randomInt(10 ** Math.min(tries - 5, 9))}`;
    if (!taken(name)) return name;
  }
}
