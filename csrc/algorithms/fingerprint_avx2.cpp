#include "algorithms/fingerprint.hpp"
