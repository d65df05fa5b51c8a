#include "algorithms/half.hpp"
