#include <stdio.h>
#include <stdlib.h>
#include "add.h"
int main(int argc, char **argv) {
  printf("%d\n", argc == 3 ? add(atoi(argv[1]), atoi(argv[2])) : 0);
  return 0;
}
