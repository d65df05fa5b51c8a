#include "algorithms/gradient_loops.hpp"
