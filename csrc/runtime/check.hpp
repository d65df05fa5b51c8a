// Guards for what "cannot" be: whatever a user can get wrong was said in Python.
#pragma once

#include <cassert>

#define FASTCONV_DCHECK(condition) assert(condition)
