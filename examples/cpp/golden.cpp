#include "golden.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "errors.hpp"
#include "images.hpp"

namespace fs = std::filesystem;

namespace kdas {

namespace {

// What the project promises; a bundle may ask for more, not for less.
constexpr double promised_disagreement = 0.005;
// The two channels are probabilities, so that they add up to 1 but for rounding.
constexpr float sum_tolerance = 1e-3f;

// The golden maps before schema 1.3: an array as `numpy.save` writes it, format 1.0, little-endian
// float32, C order, (size, size).
std::vector<float> decode_npy(const std::string& bytes, const fs::path& path, int size) {
    constexpr std::size_t fixed = 10;  // magic, version, length of the header
    std::size_t header = 0;
    if (bytes.size() >= fixed && bytes.compare(0, 8, std::string("\x93NUMPY\x01\x00", 8)) == 0) {
        header = static_cast<unsigned char>(bytes[8]) | static_cast<unsigned char>(bytes[9]) << 8;
    }
    const std::string text = bytes.substr(std::min(fixed, bytes.size()), header);
    const std::string side = std::to_string(size);
    const std::size_t count = static_cast<std::size_t>(size) * size;
    if (text.find("'descr': '<f4'") == std::string::npos ||
        text.find("'fortran_order': False") == std::string::npos ||
        text.find("'shape': (" + side + ", " + side + ")") == std::string::npos ||
        bytes.size() != fixed + header + count * sizeof(float)) {
        throw UserError(path.string() + " is not a " + side + "×" + side +
                        " float32 array; export the bundle again");
    }
    std::vector<float> values(count);
    std::memcpy(values.data(), bytes.data() + fixed + header, count * sizeof(float));
    return values;
}

}  // namespace

GoldenResult check_golden(Segmenter& segmenter, const Bundle& bundle,
                          const std::string& precision) {
    GoldenResult result;
    const auto own = bundle.disagreement.find(precision);
    result.allowed = own == bundle.disagreement.end()
                         ? promised_disagreement
                         : std::min(own->second, promised_disagreement);
    const auto threshold = static_cast<float>(bundle.threshold);
    for (const GoldenVector& vector : bundle.golden) {
        const auto path = vector.expected.find(precision);
        if (path == vector.expected.end()) continue;
        const Image image = read_image(bundle.file(vector.frame));
        const fs::path file = bundle.file(path->second);
        const std::string bytes = read_bytes(file);
        const std::vector<float> expected = file.extension() == ".npy"
                                                ? decode_npy(bytes, file, bundle.size)
                                                : decode_map_png(bytes, file, bundle.size);
        const Result& found = segmenter.segment({image.height, image.width, image.bgr.data()});
        std::size_t differing = 0;
        for (std::size_t i = 0; i < expected.size(); ++i) {
            // written so that a NaN fails as well
            if (!(std::abs(found.background[i] + found.polyp[i] - 1) <= sum_tolerance)) {
                throw UserError("the model's two channels do not add up to 1 on " + vector.frame +
                                "; export the bundle again");
            }
            differing += (found.polyp[i] > threshold) != (expected[i] > threshold);
            result.largest_difference = std::max<double>(
                result.largest_difference, std::abs(found.polyp[i] - expected[i]));
        }
        result.disagreement += static_cast<double>(differing) / expected.size();
        ++result.frames;
    }
    if (result.frames == 0) {
        throw UserError("bundle " + bundle.name + " has no golden vectors of precision " +
                        precision + "; export it again");
    }
    result.disagreement /= result.frames;
    return result;
}

}  // namespace kdas
