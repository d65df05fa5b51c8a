#include "algorithms/depthwise.hpp"
