// The golden check: does this device give what the network gave where it was trained?
#pragma once

#include "bundle.hpp"
#include "segmenter.hpp"

namespace kdas {

struct GoldenResult {
    int frames = 0;
    double disagreement = 0;  // share of mask pixels that differ, mean over the frames
    double allowed = 0;
    double largest_difference = 0;  // of a probability; the camera's resize is in it
    bool passed() const { return disagreement <= allowed; }
};

// Segments every golden frame and compares with the stored probabilities at the network's size,
// by the rule of `kdas-edge verify` for camera models. Throws UserError: the bundle has no golden
// vector of this precision, or the model's output is no probabilities.
GoldenResult check_golden(Segmenter& segmenter, const Bundle& bundle, const std::string& precision);

}  // namespace kdas
