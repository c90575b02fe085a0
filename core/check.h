#pragma once

#include <cstdio>
#include <cstdlib>

/// Aborts on a programmer error, in every build type. Never for input from peers, disk or guests.
#define CHECK(condition)                                                                 \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)
