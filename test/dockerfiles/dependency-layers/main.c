#include <stdio.h>
int square(int), twice(int);
int main(void) {
  printf("%d\n", twice(square(5)));
  return 0;
}
