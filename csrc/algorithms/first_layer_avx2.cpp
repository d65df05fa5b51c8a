#include "algorithms/first_layer.hpp"
