#include "algorithms/stem.hpp"
