#include "images.hpp"

#include <cctype>
#include <fstream>
#include <iterator>

#include "errors.hpp"

#ifdef KDAS_WITH_OPENCV
#include <opencv2/imgcodecs.hpp>
#endif

namespace fs = std::filesystem;

namespace kdas {

namespace {

// four times an 8K frame, uncompressed
constexpr std::uintmax_t largest_file = 400u << 20;
constexpr int largest_side = 16384;

// The header of a PNM file: magic, width, height, largest value, with comments between.
class PnmHeader {
public:
    PnmHeader(const std::string& bytes, const fs::path& path) : bytes_(bytes), path_(path) {}

    int number() {
        while (at_ < bytes_.size() && (std::isspace(next()) != 0 || next() == '#')) {
            if (next() == '#') at_ = bytes_.find('\n', at_);  // npos is past the end, too
            if (at_ < bytes_.size()) ++at_;
        }
        int value = 0;
        const std::size_t start = at_;
        while (at_ < bytes_.size() && std::isdigit(next()) != 0 && value <= largest_side) {
            value = 10 * value + (next() - '0');
            ++at_;
        }
        if (at_ == start || value > largest_side) {
            throw UserError(path_.string() + " has a damaged PNM header; write the file again");
        }
        return value;
    }

    std::size_t data() const { return at_ + 1; }  // one space follows the last number

private:
    int next() const { return static_cast<unsigned char>(bytes_[at_]); }

    const std::string& bytes_;
    const fs::path& path_;
    std::size_t at_ = 2;  // after P5 or P6
};

Image decode_pnm(const std::string& bytes, const fs::path& path) {
    const int channels = bytes[1] == '6' ? 3 : 1;
    PnmHeader header(bytes, path);
    const int width = header.number(), height = header.number(), largest = header.number();
    const std::size_t count = std::size_t{1} * width * height * channels;
    if (largest != 255 || count == 0 || bytes.size() < header.data() + count) {
        throw UserError(path.string() + " is cut short or has not 8 bits a channel; write it again");
    }
    const auto* pixels = reinterpret_cast<const std::uint8_t*>(bytes.data()) + header.data();
    return to_bgr(pixels, channels, width, height);
}

#ifdef KDAS_WITH_OPENCV
Image decode_with_opencv(const std::string& bytes, const fs::path& path) {
    const cv::Mat encoded(1, static_cast<int>(bytes.size()), CV_8U, const_cast<char*>(bytes.data()));
    // the orientation of EXIF is not applied: the network was trained on the stored pixels
    const cv::Mat image =
        cv::imdecode(encoded, cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION);
    if (image.empty()) throw UserError(path.string() + " cannot be read as an image; replace it");
    return {image.rows, image.cols, {image.data, image.data + image.total() * 3}};
}
#endif

}  // namespace

std::string read_bytes(const fs::path& path) {
    std::error_code error;
    if (!fs::exists(path, error)) throw UserError(path.string() + " does not exist; check the path");
    if (!fs::is_regular_file(path, error)) {
        throw UserError(path.string() + " is not a file; name an image");
    }
    const std::uintmax_t size = fs::file_size(path, error);
    if (size == 0) throw UserError(path.string() + " is empty (0 bytes); copy the file again");
    if (error || size > largest_file) {
        throw UserError(path.string() + " is too large to be an endoscopic frame; reduce it");
    }
    std::ifstream file(path, std::ios::binary);
    if (!file) throw UserError("cannot read " + path.string() + "; check permissions");
    return {std::istreambuf_iterator<char>(file), {}};
}

Image to_bgr(const std::uint8_t* pixels, int channels, int width, int height) {
    const std::size_t count = std::size_t{1} * width * height;
    Image image{height, width, std::vector<std::uint8_t>(3 * count)};
    const bool grey = channels < 3;
    for (std::size_t i = 0; i < count; ++i, pixels += channels) {
        image.bgr[3 * i] = pixels[grey ? 0 : 2];
        image.bgr[3 * i + 1] = pixels[grey ? 0 : 1];
        image.bgr[3 * i + 2] = pixels[0];
    }
    return image;
}

Image read_image(const fs::path& path) {
    const std::string bytes = read_bytes(path);
    if (bytes.compare(0, 4, "\x89PNG") == 0) return decode_png(bytes, path);
    if (bytes.compare(0, 2, "P5") == 0 || bytes.compare(0, 2, "P6") == 0) {
        return decode_pnm(bytes, path);
    }
#ifdef KDAS_WITH_OPENCV
    return decode_with_opencv(bytes, path);
#else
    throw UserError(path.string() +
                    " is no PNG, binary PPM or PGM; convert it, give --size for raw BGR, or build "
                    "with -DKDAS_WITH_OPENCV=ON");
#endif
}

Image read_raw(const fs::path& path, int width, int height) {
    const std::string bytes = read_bytes(path);
    const std::size_t wanted = std::size_t{3} * width * height;
    if (bytes.size() != wanted) {
        throw UserError(path.string() + " has " + std::to_string(bytes.size()) + " bytes, a BGR " +
                        "frame of " + std::to_string(width) + "×" + std::to_string(height) +
                        " has " + std::to_string(wanted) + "; check --size");
    }
    return {height, width, {bytes.begin(), bytes.end()}};
}

void write_pgm(const fs::path& path, const std::vector<std::uint8_t>& grey, int width,
               int height) {
    const fs::path temporary = path.string() + ".part";
    {
        std::ofstream file(temporary, std::ios::binary);
        file << "P5\n" << width << ' ' << height << "\n255\n";
        file.write(reinterpret_cast<const char*>(grey.data()),
                   static_cast<std::streamsize>(grey.size()));
        file.close();
        if (!file) throw UserError("cannot write " + path.string() + "; check space and permissions");
    }
    std::error_code error;
    fs::rename(temporary, path, error);
    if (error) throw UserError("cannot write " + path.string() + ": " + error.message());
}

}  // namespace kdas
