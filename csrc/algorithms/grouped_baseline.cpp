#include "algorithms/grouped.hpp"
