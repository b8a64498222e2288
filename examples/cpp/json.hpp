// A reader of JSON, as much of it as a manifest needs.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace kdas {

// What is wrong with a text or a value; the caller adds the name of the file.
struct JsonError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// One value: null, true or false, a number, a string, an array or an object.
class Json {
public:
    // Throws JsonError: the text is not JSON, or nests deeper than any manifest does.
    static Json parse(const std::string& text);

    // Each of these throws JsonError if the value is of another kind.
    const std::string& string() const;
    double number() const;
    const std::vector<Json>& items() const;  // of an array, or the values of an object
    const std::vector<std::string>& keys() const;

    // The value of a key, or nullptr. Of a key that is written twice the last value counts.
    const Json* find(const std::string& key) const;
    // The value of a key; throws JsonError if the object lacks it.
    const Json& at(const std::string& key) const;

private:
    friend class JsonParser;
    enum class Kind { null, boolean, number, string, array, object };

    Kind kind_ = Kind::null;
    double number_ = 0;  // of a number, or 0 and 1 of a boolean
    std::string string_;
    std::vector<std::string> keys_;
    std::vector<Json> items_;
};

}  // namespace kdas
