#include "algorithms/winograd_gradient.hpp"
