#include "sha256.hpp"

#include <array>
#include <cstdint>
#include <fstream>
#include <istream>
#include <sstream>
#include <vector>

#include "errors.hpp"

namespace kdas {

namespace {

constexpr std::size_t block_bytes = 64;
constexpr std::size_t read_bytes = 1 << 20;

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
constexpr std::array<std::uint32_t, 64> round_constants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

std::uint32_t rotate(std::uint32_t value, int bits) {
    return (value >> bits) | (value << (32 - bits));
}

void add_block(std::array<std::uint32_t, 8>& state, const unsigned char* block) {
    std::array<std::uint32_t, 64> w{};
    for (int i = 0; i < 16; ++i) {
        w[i] = std::uint32_t{block[4 * i]} << 24 | std::uint32_t{block[4 * i + 1]} << 16 |
               std::uint32_t{block[4 * i + 2]} << 8 | std::uint32_t{block[4 * i + 3]};
    }
    for (int i = 16; i < 64; ++i) {
        const std::uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ (w[i - 15] >> 3);
        const std::uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ (w[i - 2] >> 10);
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state;
    for (int i = 0; i < 64; ++i) {
        const std::uint32_t s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
        const std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + round_constants[i] + w[i];
        const std::uint32_t s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
        const std::uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    const std::array<std::uint32_t, 8> added = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; ++i) state[i] += added[i];
}

}  // namespace

namespace {

// The hash of what a stream holds; `bad` is set where it cannot be read to its end.
std::string sha256_of_stream(std::istream& file) {
    std::array<std::uint32_t, 8> state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::vector<unsigned char> buffer(read_bytes);
    std::uint64_t total = 0;
    std::size_t count = 0;
    do {
        file.read(reinterpret_cast<char*>(buffer.data()), read_bytes);
        count = static_cast<std::size_t>(file.gcount());
        total += count;
        for (std::size_t at = 0; at + block_bytes <= count; at += block_bytes) {
            add_block(state, &buffer[at]);
        }
    } while (count == read_bytes);

    // the rest, a 1 bit, zeros, and the length in bits
    const std::size_t rest = count % block_bytes;
    std::vector<unsigned char> tail(buffer.begin() + (count - rest), buffer.begin() + count);
    tail.push_back(0x80);
    while (tail.size() % block_bytes != block_bytes - 8) tail.push_back(0);
    for (int shift = 56; shift >= 0; shift -= 8) {
        tail.push_back(static_cast<unsigned char>((total * 8) >> shift));
    }
    for (std::size_t at = 0; at < tail.size(); at += block_bytes) add_block(state, &tail[at]);

    static const char* digits = "0123456789abcdef";
    std::string hex;
    for (const std::uint32_t value : state) {
        for (int shift = 28; shift >= 0; shift -= 4) hex += digits[(value >> shift) & 15];
    }
    return hex;
}

}  // namespace

std::string sha256_of_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw UserError("cannot read " + path.string() + "; check permissions");
    const std::string hash = sha256_of_stream(file);
    if (file.bad()) throw UserError("cannot read " + path.string() + "; check the disk");
    return hash;
}

std::string sha256_of_text(const std::string& text) {
    std::istringstream stream(text);
    return sha256_of_stream(stream);
}

}  // namespace kdas
