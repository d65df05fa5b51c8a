#include "algorithms/winograd.hpp"
