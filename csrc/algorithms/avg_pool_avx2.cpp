#include "algorithms/avg_pool.hpp"
