// Frames from files and masks into files, without a library.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace kdas {

struct Image {
    int height = 0;
    int width = 0;
    std::vector<std::uint8_t> bgr;  // height × width × 3
};

// Read a frame: PNG (8 bits a channel, not interlaced), PPM or PGM (binary), other formats where
// OpenCV was built in. Grey is repeated, alpha dropped. Throws UserError.
Image read_image(const std::filesystem::path& path);

// Read a file of width × height × 3 bytes, blue, green, red. Throws UserError.
Image read_raw(const std::filesystem::path& path, int width, int height);

// Write a binary PGM under a temporary name, then rename it. Throws UserError.
void write_pgm(const std::filesystem::path& path, const std::vector<std::uint8_t>& grey, int width,
               int height);

// The bytes of a file; throws UserError if it is absent, empty or too large for a frame.
std::string read_bytes(const std::filesystem::path& path);

// Decode a PNG; `path` is for messages. Throws UserError.
Image decode_png(const std::string& bytes, const std::filesystem::path& path);

// Decode a golden map: a grey PNG of 16 bits and size × size pixels, 65535 being 1; `path` is for
// messages. Throws UserError.
std::vector<float> decode_map_png(const std::string& bytes, const std::filesystem::path& path,
                                  int size);

// Pixels with 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha) bytes each, as BGR.
Image to_bgr(const std::uint8_t* pixels, int channels, int width, int height);

}  // namespace kdas
