#include "algorithms/fft.hpp"
