// One frame in, one mask out.
//
//     kdas::Bundle bundle = kdas::open_bundle("mybundle");
//     kdas::Segmenter segmenter(bundle, bundle.camera_model(""), {});
//     const kdas::Result& result = segmenter.segment({mat.rows, mat.cols, mat.data, mat.step});
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bundle.hpp"

namespace kdas {

// A frame of yours: it is read during `segment`, never kept, never changed.
struct Frame {
    int height = 0;
    int width = 0;
    const std::uint8_t* bgr = nullptr;  // blue, green, red of each pixel, as OpenCV and cameras do
    std::size_t row_bytes = 0;          // from one row to the next; 0: rows follow without a gap
};

// What the network says about a frame. It belongs to the Segmenter, whose next `segment`
// overwrites it.
struct Result {
    int height = 0;
    int width = 0;
    std::vector<std::uint8_t> mask;  // height × width, 255 where polyp, otherwise 0
    int size = 0;                    // S
    const float* background = nullptr;  // S × S probabilities, 0…1; they add up to 1
    const float* polyp = nullptr;       // S × S
    double inference_ms = 0;            // the network with its preprocessing
    double mask_ms = 0;                 // from probabilities to the mask at the frame's size
};

struct Options {
    std::string device = "CPU";  // of OpenVINO: CPU, GPU, GPU.1, NPU, …
    int threads = 0;             // of the CPU for one inference; 0: OpenVINO chooses
};

// A model loaded on a device: synchronous, one stream, explicit precision of the arithmetic.
// Use one from one thread at a time; several threads have one each.
class Segmenter {
public:
    // Throws UserError: OpenVINO cannot load the model on this device.
    Segmenter(const Bundle& bundle, const ModelFile& model, const Options& options);
    ~Segmenter();
    Segmenter(const Segmenter&) = delete;
    Segmenter& operator=(const Segmenter&) = delete;

    // Segment one frame of any size. The first frame of a new size takes longer: OpenVINO plans
    // its memory. Throws UserError: the frame has no pixel.
    const Result& segment(const Frame& frame);

    // What the last `segment` returned.
    const Result& result() const { return result_; }

    // What OpenVINO really does, e.g. "OpenVINO 2026.4.1 on CPU, f32, 2 threads, 1 stream".
    std::string effective() const;

private:
    struct Loaded;  // keeps OpenVINO's headers out of this one
    std::unique_ptr<Loaded> loaded_;
    float threshold_;
    Result result_;
    std::vector<std::uint8_t> packed_;  // a frame whose rows have gaps
};

// Resize S × S probabilities bilinearly to height × width and write 255 where the result is above
// the threshold, otherwise 0. The values are those of cv2.resize(…, INTER_LINEAR) to the last bit
// where OpenCV runs on Intel's IPP with FMA, as its packages for x86-64 do since AVX2.
void mask_at_size(const float* probability, int size, float threshold, int height, int width,
                  std::uint8_t* mask);

}  // namespace kdas
