#include "algorithms/batch_norm_loops.hpp"
