#include "algorithms/depthwise_small.hpp"
