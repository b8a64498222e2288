// SHA-256 (FIPS 180-4), to compare the files of a bundle with its manifest.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace kdas {

// The hash of a file as 64 hexadecimal digits; throws UserError if it cannot be read.
std::string sha256_of_file(const std::filesystem::path& path);

// The hash of a text's bytes.
std::string sha256_of_text(const std::string& text);

}  // namespace kdas
