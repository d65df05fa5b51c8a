#include "algorithms/microkernel.hpp"
