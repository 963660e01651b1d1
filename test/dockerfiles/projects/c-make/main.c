#include <stdio.h>
#include <stdlib.h>
#include "sum.h"

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  printf("%d\n", sum(atoi(argv[1]), atoi(argv[2])));
  return 0;
}
