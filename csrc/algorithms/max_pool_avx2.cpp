#include "algorithms/max_pool.hpp"
