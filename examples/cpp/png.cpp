// PNG (ISO/IEC 15948) with its compression (RFC 1950 and 1951): 8 bits a channel, or grey of 16 bits,
// not interlaced.
//
// The golden frames and maps are such files. Reading them here lets the golden check run wherever a compiler
// is; damaged data gives an error, never a read or write beyond the buffers.

#include <array>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "errors.hpp"
#include "images.hpp"

namespace kdas {

namespace {

constexpr std::size_t largest_image = 400u << 20;

struct Damaged {
    const char* what;
};

// Bits of a deflate stream, the lowest of each byte first.
class Bits {
public:
    explicit Bits(const std::string& bytes, std::size_t start) : bytes_(bytes), at_(start) {}

    std::uint32_t take(int count) {
        while (held_ < count) {
            bits_ |= std::uint64_t{next_byte()} << held_;
            held_ += 8;
        }
        const auto value = static_cast<std::uint32_t>(bits_ & ((std::uint64_t{1} << count) - 1));
        bits_ >>= count;
        held_ -= count;
        return value;
    }

    void skip_to_byte() { take(held_ % 8); }

private:
    unsigned char next_byte() {
        if (at_ >= bytes_.size()) throw Damaged{"cut short"};
        return static_cast<unsigned char>(bytes_[at_++]);
    }

    const std::string& bytes_;
    std::size_t at_;
    std::uint64_t bits_ = 0;
    int held_ = 0;
};

// A canonical Huffman code: symbols in order of length, then of value.
class Huffman {
public:
    Huffman(const std::uint8_t* lengths, int count) {
        for (int i = 0; i < count; ++i) ++counts_[lengths[i]];
        counts_[0] = 0;
        std::array<int, 17> starts{};
        for (int length = 1; length <= 15; ++length) {
            starts[length + 1] = starts[length] + counts_[length];
        }
        symbols_.resize(starts[16]);
        for (int i = 0; i < count; ++i) {
            if (lengths[i] != 0) symbols_[starts[lengths[i]]++] = i;
        }
    }

    int decode(Bits& bits) const {
        int code = 0, first = 0, index = 0;
        for (int length = 1; length <= 15; ++length) {
            code |= static_cast<int>(bits.take(1));
            const int count = counts_[length];
            if (code - first < count) return symbols_[index + code - first];
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        throw Damaged{"an unknown code"};
    }

private:
    std::array<int, 16> counts_{};
    std::vector<int> symbols_;
};

struct Codes {
    Huffman literals;
    Huffman distances;
};

Codes fixed_codes() {
    std::array<std::uint8_t, 288> literals{};
    for (int i = 0; i < 288; ++i) literals[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    std::array<std::uint8_t, 30> distances{};
    distances.fill(5);
    return {Huffman(literals.data(), 288), Huffman(distances.data(), 30)};
}

Codes dynamic_codes(Bits& bits) {
    const int literals = static_cast<int>(bits.take(5)) + 257;
    const int distances = static_cast<int>(bits.take(5)) + 1;
    const int count = static_cast<int>(bits.take(4)) + 4;
    static constexpr std::array<int, 19> order = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                  11, 4,  12, 3, 13, 2, 14, 1, 15};
    std::array<std::uint8_t, 19> code_lengths{};
    for (int i = 0; i < count; ++i) code_lengths[order[i]] = static_cast<std::uint8_t>(bits.take(3));
    const Huffman code(code_lengths.data(), 19);
    std::vector<std::uint8_t> lengths;
    const auto total = static_cast<std::size_t>(literals + distances);
    while (lengths.size() < total) {
        const int symbol = code.decode(bits);
        if (symbol < 16) {
            lengths.push_back(static_cast<std::uint8_t>(symbol));
            continue;
        }
        if (symbol == 16 && lengths.empty()) throw Damaged{"a code that repeats nothing"};
        const std::uint8_t repeated = symbol == 16 ? lengths.back() : 0;
        const std::uint32_t times = symbol == 16   ? 3 + bits.take(2)
                                    : symbol == 17 ? 3 + bits.take(3)
                                                   : 11 + bits.take(7);
        lengths.insert(lengths.end(), times, repeated);
    }
    if (lengths.size() != total || literals > 286 || distances > 30) throw Damaged{"a wrong code"};
    return {Huffman(lengths.data(), literals), Huffman(&lengths[literals], distances)};
}

void inflate_block(Bits& bits, const Codes& codes, std::vector<std::uint8_t>& out,
                   std::size_t limit) {
    while (true) {
        const int symbol = codes.literals.decode(bits);
        if (symbol == 256) return;
        if (symbol < 256) {
            if (out.size() >= limit) throw Damaged{"too many pixels"};
            out.push_back(static_cast<std::uint8_t>(symbol));
            continue;
        }
        // lengths 3…258 in groups of four with 0…5 extra bits, distances 1…32768 in pairs
        std::size_t length = 258;
        if (symbol < 265) {
            length = static_cast<std::size_t>(symbol - 254);
        } else if (symbol < 285) {
            const int extra = (symbol - 261) / 4;
            length = (std::size_t{4} + (symbol - 261) % 4) * (std::size_t{1} << extra) + 3 +
                     bits.take(extra);
        } else if (symbol > 285) {
            throw Damaged{"an unknown length"};
        }
        const int pair = codes.distances.decode(bits);
        std::size_t distance = static_cast<std::size_t>(pair) + 1;
        if (pair > 3) {
            const int extra = pair / 2 - 1;
            distance = (std::size_t{2} + pair % 2) * (std::size_t{1} << extra) + 1 +
                       bits.take(extra);
        }
        if (distance > out.size()) throw Damaged{"a reference before the start"};
        if (out.size() + length > limit) throw Damaged{"too many pixels"};
        for (std::size_t from = out.size() - distance; length > 0; --length, ++from) {
            out.push_back(out[from]);
        }
    }
}

// A zlib stream of exactly `size` bytes.
std::vector<std::uint8_t> inflate(const std::string& stream, std::size_t size) {
    if (stream.size() < 6 || (stream[0] & 15) != 8 || (stream[1] & 32) != 0) {
        throw Damaged{"not compressed as PNG is"};
    }
    Bits bits(stream, 2);
    std::vector<std::uint8_t> out;
    out.reserve(size);
    bool last = false;
    while (!last) {
        last = bits.take(1) == 1;
        const std::uint32_t kind = bits.take(2);
        if (kind == 0) {
            bits.skip_to_byte();
            const std::uint32_t length = bits.take(16);
            if ((bits.take(16) ^ 0xFFFF) != length) throw Damaged{"a damaged block"};
            if (out.size() + length > size) throw Damaged{"too many pixels"};
            for (std::uint32_t i = 0; i < length; ++i) {
                out.push_back(static_cast<std::uint8_t>(bits.take(8)));
            }
        } else if (kind < 3) {
            inflate_block(bits, kind == 1 ? fixed_codes() : dynamic_codes(bits), out, size);
        } else {
            throw Damaged{"a damaged block"};
        }
    }
    if (out.size() != size) throw Damaged{"too few pixels"};
    // the check value, Adler-32, highest byte first
    bits.skip_to_byte();
    std::uint32_t wanted = 0, low = 1, high = 0;
    for (int i = 0; i < 4; ++i) wanted = wanted << 8 | bits.take(8);
    for (const std::uint8_t byte : out) {
        low = (low + byte) % 65521;
        high = (high + low) % 65521;
    }
    if ((high << 16 | low) != wanted) throw Damaged{"its check value is wrong"};
    return out;
}

int paeth(int left, int up, int corner) {
    const int estimate = left + up - corner;
    const int to_left = std::abs(estimate - left), to_up = std::abs(estimate - up);
    const int to_corner = std::abs(estimate - corner);
    if (to_left <= to_up && to_left <= to_corner) return left;
    return to_up <= to_corner ? up : corner;
}

// Undo the filter of each row, in place; the rows come out without their filter byte.
void unfilter(std::vector<std::uint8_t>& data, std::size_t row, int height, std::size_t pixel) {
    for (int y = 0; y < height; ++y) {
        const std::uint8_t filter = data[y * (row + 1)];
        if (filter > 4) throw Damaged{"an unknown filter"};
        const std::uint8_t* in = &data[y * (row + 1) + 1];
        std::uint8_t* out = &data[y * row];  // always before `in`
        for (std::size_t x = 0; x < row; ++x) {
            const int left = x >= pixel ? out[x - pixel] : 0;
            const int up = y > 0 ? *(out + x - row) : 0;
            const int corner = y > 0 && x >= pixel ? *(out + x - row - pixel) : 0;
            const int guess = filter == 0   ? 0
                              : filter == 1 ? left
                              : filter == 2 ? up
                              : filter == 3 ? (left + up) / 2
                                            : paeth(left, up, corner);
            out[x] = static_cast<std::uint8_t>(in[x] + guess);
        }
    }
}

std::uint32_t big_endian(const std::string& bytes, std::size_t at) {
    std::uint32_t value = 0;
    for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
    return value;
}

// Rows of pixels as the file holds them: samples of 16 bits are two bytes, the higher one first.
struct Samples {
    int width = 0, height = 0, channels = 0;
    std::vector<std::uint8_t> data;
};

// Decode a file of `wanted_depth` bits a sample.
Samples decode(const std::string& bytes, int wanted_depth) {
    constexpr std::size_t signature = 8, around = 12;  // length, type and check value of a chunk
    std::string stream;
    std::uint32_t width = 0, height = 0;
    int channels = 0;
    for (std::size_t at = signature; at + around <= bytes.size();) {
        const std::size_t length = big_endian(bytes, at);
        const std::string type = bytes.substr(at + 4, 4);
        if (length > bytes.size() - at - around) throw Damaged{"cut short"};
        const std::size_t data = at + 8;
        if (type == "IHDR") {
            if (length < 13) throw Damaged{"a short header"};
            width = big_endian(bytes, data);
            height = big_endian(bytes, data + 4);
            const int depth = bytes[data + 8], color = bytes[data + 9], interlaced = bytes[data + 12];
            channels = color == 0 ? 1 : color == 2 ? 3 : color == 4 ? 2 : color == 6 ? 4 : 0;
            const bool fits = depth == 8 ? channels != 0 : color == 0;
            if (depth != wanted_depth || !fits || interlaced != 0) {
                throw Damaged{wanted_depth == 8
                                  ? "it is not grey or RGB of 8 bits without interlacing"
                                  : "it is not grey of 16 bits without interlacing"};
            }
        } else if (type == "IDAT") {
            stream.append(bytes, data, length);
        } else if (type == "IEND") {
            break;
        }
        at += around + length;
    }
    if (width == 0 || height == 0) throw Damaged{"no pixels"};
    const std::size_t pixel = static_cast<std::size_t>(channels) * wanted_depth / 8;
    const std::uint64_t row = std::uint64_t{width} * pixel;
    if (row > largest_image || (row + 1) * height > largest_image) throw Damaged{"too many pixels"};
    std::vector<std::uint8_t> data = inflate(stream, (row + 1) * height);
    unfilter(data, row, static_cast<int>(height), pixel);
    return {static_cast<int>(width), static_cast<int>(height), channels, std::move(data)};
}

}  // namespace

Image decode_png(const std::string& bytes, const std::filesystem::path& path) {
    try {
        const Samples found = decode(bytes, 8);
        return to_bgr(found.data.data(), found.channels, found.width, found.height);
    } catch (const Damaged& damage) {
        throw UserError(path.string() + " cannot be read as a PNG (" + damage.what +
                        "); write it again as an 8-bit RGB PNG");
    }
}

std::vector<float> decode_map_png(const std::string& bytes, const std::filesystem::path& path,
                                  int size) {
    Samples found;
    const char* problem = "it has another size";
    try {
        found = decode(bytes, 16);
    } catch (const Damaged& damage) {
        problem = damage.what;
    }
    if (found.width != size || found.height != size) {
        throw UserError(path.string() + " is not a map of probabilities (" + problem +
                        "); export the bundle again");
    }
    std::vector<float> values(static_cast<std::size_t>(size) * size);
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<float>(found.data[2 * i] << 8 | found.data[2 * i + 1]) / 65535;
    }
    return values;
}

}  // namespace kdas
