#include "algorithms/probe.hpp"
