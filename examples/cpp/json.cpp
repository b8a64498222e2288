#include "json.hpp"

#include <charconv>
#include <cmath>
#include <cstdint>

namespace kdas {

namespace {
constexpr int deepest = 64;
}

// Recursive descent; `depth` bounds the recursion, so that a hostile file cannot exhaust the stack.
class JsonParser {
public:
    explicit JsonParser(const std::string& text) : text_(text) {}

    Json document() {
        Json value = parse_value(0);
        skip_space();
        if (at_ != text_.size()) fail("text after the end");
        return value;
    }

private:
    Json parse_value(int depth) {
        if (depth > deepest) fail("nested too deeply");
        skip_space();
        Json value;
        const char next = peek();
        if (next == '{') {
            value.kind_ = Json::Kind::object;
            parse_list('}', [&] {
                value.keys_.push_back(parse_string());
                expect(':');
                value.items_.push_back(parse_value(depth + 1));
            });
        } else if (next == '[') {
            value.kind_ = Json::Kind::array;
            parse_list(']', [&] { value.items_.push_back(parse_value(depth + 1)); });
        } else if (next == '"') {
            value.kind_ = Json::Kind::string;
            value.string_ = parse_string();
        } else if (word("null")) {
            value.kind_ = Json::Kind::null;
        } else if (word("true") || word("false")) {
            value.kind_ = Json::Kind::boolean;
            value.number_ = next == 't';
        } else {
            value.kind_ = Json::Kind::number;
            value.number_ = parse_number();
        }
        return value;
    }

    template <typename Element>
    void parse_list(char end, Element parse_element) {
        ++at_;  // the opening bracket
        skip_space();
        if (peek() == end) {
            ++at_;
            return;
        }
        while (true) {
            skip_space();
            parse_element();
            skip_space();
            const char next = peek();
            ++at_;
            if (next == end) return;
            if (next != ',') fail("',' or a closing bracket is missing");
        }
    }

    double parse_number() {
        double value = 0;
        const char* begin = text_.data() + at_;
        const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
        // from_chars also reads "inf" and "nan", which are not JSON
        if (error != std::errc() || !std::isfinite(value) ||
            !(*begin == '-' || (*begin >= '0' && *begin <= '9'))) {
            fail("not a value");
        }
        at_ += static_cast<std::size_t>(end - begin);
        return value;
    }

    std::string parse_string() {
        expect('"');
        std::string out;
        while (true) {
            const char c = peek();
            ++at_;
            if (c == '"') return out;
            if (static_cast<unsigned char>(c) < 0x20) fail("a line break in a string");
            if (c != '\\') {
                out += c;
                continue;
            }
            const char escaped = peek();
            ++at_;
            switch (escaped) {
                case '"': case '\\': case '/': out += escaped; break;
                case 'b': out += '\b'; break;
                case 'f': out += '\f'; break;
                case 'n': out += '\n'; break;
                case 'r': out += '\r'; break;
                case 't': out += '\t'; break;
                case 'u': append_utf8(out, parse_code_point()); break;
                default: fail("an unknown escape in a string");
            }
        }
    }

    // After \u: four digits, or a pair of surrogates for what does not fit into 16 bits.
    std::uint32_t parse_code_point() {
        const std::uint32_t high = parse_hex();
        if (high < 0xD800 || high > 0xDFFF) return high;
        if (high > 0xDBFF || !word("\\u")) fail("half a character in a string");
        const std::uint32_t low = parse_hex();
        if (low < 0xDC00 || low > 0xDFFF) fail("half a character in a string");
        return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
    }

    std::uint32_t parse_hex() {
        std::uint32_t value = 0;
        const char* begin = text_.data() + at_;
        if (text_.size() - at_ < 4 || std::from_chars(begin, begin + 4, value, 16).ptr != begin + 4) {
            fail("\\u needs four hexadecimal digits");
        }
        at_ += 4;
        return value;
    }

    static void append_utf8(std::string& out, std::uint32_t c) {
        if (c < 0x80) {
            out += static_cast<char>(c);
            return;
        }
        const int following = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
        const std::uint32_t mark = following == 1 ? 0xC0 : following == 2 ? 0xE0 : 0xF0;
        out += static_cast<char>(mark | (c >> (6 * following)));
        for (int i = following - 1; i >= 0; --i) {
            out += static_cast<char>(0x80 | ((c >> (6 * i)) & 0x3F));
        }
    }

    void skip_space() {
        while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' ||
                                      text_[at_] == '\r' || text_[at_] == '\t')) {
            ++at_;
        }
    }

    char peek() const {
        if (at_ >= text_.size()) fail("cut short");
        return text_[at_];
    }

    void expect(char wanted) {
        skip_space();
        if (peek() != wanted) fail(std::string("'") + wanted + "' is missing");
        ++at_;
    }

    bool word(const char* wanted) {
        const std::string expected = wanted;
        if (text_.compare(at_, expected.size(), expected) != 0) return false;
        at_ += expected.size();
        return true;
    }

    [[noreturn]] void fail(const std::string& what) const {
        throw JsonError(what + " at byte " + std::to_string(at_));
    }

    const std::string& text_;
    std::size_t at_ = 0;
};

Json Json::parse(const std::string& text) { return JsonParser(text).document(); }

const std::string& Json::string() const {
    if (kind_ != Kind::string) throw JsonError("not a string");
    return string_;
}

double Json::number() const {
    if (kind_ != Kind::number) throw JsonError("not a number");
    return number_;
}

const std::vector<Json>& Json::items() const {
    if (kind_ != Kind::array && kind_ != Kind::object) throw JsonError("not a list");
    return items_;
}

const std::vector<std::string>& Json::keys() const {
    if (kind_ != Kind::object) throw JsonError("not an object");
    return keys_;
}

const Json* Json::find(const std::string& key) const {
    if (kind_ != Kind::object) throw JsonError("not an object");
    for (std::size_t i = keys_.size(); i-- > 0;) {
        if (keys_[i] == key) return &items_[i];
    }
    return nullptr;
}

const Json& Json::at(const std::string& key) const {
    const Json* value = find(key);
    if (value == nullptr) throw JsonError("key '" + key + "' is missing");
    return *value;
}

}  // namespace kdas
