#include "algorithms/rows.hpp"
