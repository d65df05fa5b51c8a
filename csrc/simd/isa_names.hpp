// Names of instruction sets, for reports.
#pragma once

#include <string>
#include <vector>

namespace fastconv {

// What runs: "amx" where has_matrix_tiles, else active_isa's name.
std::string active_isa_name();

// What this library and this machine could run, best first, whatever FASTCONV_ISA says.
std::vector<std::string> available_isa_names();

}  // namespace fastconv
