#include <stdio.h>

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#ifndef LEVEL
#define LEVEL 0
#endif

int main(void) {
  puts(TEXT(VARIANT) " " TEXT(LEVEL) " " TEXT(ARCH));
  return 0;
}
