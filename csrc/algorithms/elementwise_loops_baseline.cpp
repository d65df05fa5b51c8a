#include "algorithms/elementwise_loops.hpp"
