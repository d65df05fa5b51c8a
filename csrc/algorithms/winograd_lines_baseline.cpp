#include "algorithms/winograd_lines.hpp"
