/* What the hosts share: run a few steps of the model given as argument, end the program on any failure. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mixtral.h"

#define REQUIRE(condition)                                            \
  do {                                                                \
    if (!(condition)) {                                               \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                        \
    }                                                                 \
  } while (0)
