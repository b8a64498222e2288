// Errors that a person can act on.
#pragma once

#include <stdexcept>
#include <string>

namespace kdas {

// The input is wrong. The message names the offending value and the remedy, in one line; the
// program prints it and returns exit code 2.
struct UserError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace kdas
