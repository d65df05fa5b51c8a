#include "algorithms/panel_tile.hpp"
