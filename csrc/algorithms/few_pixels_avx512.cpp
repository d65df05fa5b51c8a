#include "algorithms/few_pixels.hpp"
