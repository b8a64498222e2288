#include "segmenter.hpp"

#include <chrono>
#include <cmath>
#include <cstring>
#include <openvino/runtime/core.hpp>
#include <sstream>

#include "errors.hpp"

namespace kdas {

namespace {

using Clock = std::chrono::steady_clock;

const char* const output_name = "probabilities";

double milliseconds(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double, std::milli>(to - from).count();
}

// OpenVINO puts source locations before what it has to say.
std::string last_line(const std::string& text) {
    std::istringstream lines(text);
    std::string line, last = "no reason given";
    while (std::getline(lines, line)) {
        const std::size_t start = line.find_first_not_of(" \t\r");
        if (start != std::string::npos) last = line.substr(start);
    }
    return last.substr(0, 200);
}

ov::AnyMap properties(const Options& options) {
    // Without a hint, a CPU with AMX or AVX512-BF16 runs an fp32 IR in bf16, a GPU in fp16. NPUs
    // have no f32 arithmetic at all.
    const bool npu = options.device.rfind("NPU", 0) == 0;
    ov::AnyMap settings = {
        ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
        ov::hint::num_requests(1),
        ov::hint::inference_precision(npu ? ov::element::f16 : ov::element::f32),
    };
    if (options.device == "CPU") {
        settings.insert(ov::num_streams(1));
        if (options.threads > 0) settings.insert(ov::inference_num_threads(options.threads));
    } else if (options.threads > 0) {
        throw UserError("device " + options.device + " takes no number of threads; remove it");
    }
    return settings;
}

// Where an output pixel's centre lies between two input pixels.
struct Tap {
    int first;
    int second;
    float weight;  // of the second
};

std::vector<Tap> taps(int from, int to) {
    const double scale = static_cast<double>(from) / to;
    std::vector<Tap> out(to);
    for (int i = 0; i < to; ++i) {
        const double position = (i + 0.5) * scale - 0.5;
        const int first = static_cast<int>(std::floor(position));
        if (first < 0) {
            out[i] = {0, 0, 0};
        } else if (first >= from - 1) {
            out[i] = {from - 1, from - 1, 0};
        } else {
            out[i] = {first, first + 1, static_cast<float>(position - first)};
        }
    }
    return out;
}

// a + (b - a) · weight, rounded once after the product, as a fused multiply-add does: the product
// of two floats is exact in double.
inline float blend(float a, float b, float weight) {
    return static_cast<float>(a + static_cast<double>(b - a) * weight);
}

}  // namespace

struct Segmenter::Loaded {
    ov::Core core;
    ov::CompiledModel model;
    ov::InferRequest request;
    std::string device;
};

Segmenter::Segmenter(const Bundle& bundle, const ModelFile& model, const Options& options)
    : loaded_(std::make_unique<Loaded>()), threshold_(static_cast<float>(bundle.threshold)) {
    const ov::AnyMap settings = properties(options);
    const std::string path = bundle.file(model.path).string();
    const auto size = static_cast<std::size_t>(bundle.size);
    try {
        loaded_->model = loaded_->core.compile_model(path, options.device, settings);
        loaded_->request = loaded_->model.create_infer_request();
    } catch (const ov::Exception& error) {
        throw UserError("OpenVINO cannot load " + path + " on " + options.device + " (" +
                        last_line(error.what()) + "); try another device or precision");
    }
    loaded_->device = options.device;
    if (loaded_->model.output(output_name).get_partial_shape() !=
        ov::PartialShape{1, 2, bundle.size, bundle.size}) {
        throw UserError(path + " does not give (1, 2, " + std::to_string(size) + ", " +
                        std::to_string(size) + ") probabilities; export the bundle again");
    }
    result_.size = bundle.size;
}

Segmenter::~Segmenter() = default;

const Result& Segmenter::segment(const Frame& frame) {
    if (frame.height <= 0 || frame.width <= 0 || frame.bgr == nullptr) {
        throw UserError("the frame of " + std::to_string(frame.width) + "×" +
                        std::to_string(frame.height) + " has no pixel; check the source");
    }
    const auto height = static_cast<std::size_t>(frame.height);
    const auto width = static_cast<std::size_t>(frame.width);
    const std::size_t line = 3 * width;
    if (frame.row_bytes != 0 && frame.row_bytes < line) {
        throw UserError("a row of " + std::to_string(frame.row_bytes) + " bytes cannot hold " +
                        std::to_string(width) + " BGR pixels; convert grey frames to BGR");
    }
    const auto started = Clock::now();
    const std::uint8_t* pixels = frame.bgr;
    if (frame.row_bytes != 0 && frame.row_bytes != line) {
        packed_.resize(height * line);
        for (std::size_t y = 0; y < height; ++y) {
            std::memcpy(&packed_[y * line], frame.bgr + y * frame.row_bytes, line);
        }
        pixels = packed_.data();
    }
    // OpenVINO reads the frame in place; it takes a pointer to non-const, but does not write.
    loaded_->request.set_input_tensor(
        ov::Tensor(ov::element::u8, {1, height, width, 3}, const_cast<std::uint8_t*>(pixels)));
    loaded_->request.infer();
    const float* output = loaded_->request.get_tensor(output_name).data<float>();
    const auto inferred = Clock::now();
    const auto side = static_cast<std::size_t>(result_.size);
    result_.background = output;
    result_.polyp = output + side * side;
    result_.height = frame.height;
    result_.width = frame.width;
    result_.mask.resize(height * width);
    mask_at_size(result_.polyp, result_.size, threshold_, frame.height, frame.width,
                 result_.mask.data());
    result_.inference_ms = milliseconds(started, inferred);
    result_.mask_ms = milliseconds(inferred, Clock::now());
    return result_;
}

std::string Segmenter::effective() const {
    const ov::CompiledModel& model = loaded_->model;
    std::ostringstream out;
    const std::string build = ov::get_openvino_version().buildNumber;
    out << "OpenVINO " << build.substr(0, build.find('-')) << " on " << loaded_->device << ", "
        << model.get_property(ov::hint::inference_precision);
    if (loaded_->device == "CPU") {  // not every device tells these
        out << ", threads " << model.get_property(ov::inference_num_threads) << ", streams "
            << model.get_property(ov::num_streams);
    }
    return out.str();
}

void mask_at_size(const float* probability, int size, float threshold, int height, int width,
                  std::uint8_t* mask) {
    const std::vector<Tap> columns = taps(size, width);
    const std::vector<Tap> rows = taps(size, height);
    // the two rows of the network's map around the current one, already at the frame's width
    std::vector<float> upper(width), lower(width);
    int upper_row = -1, lower_row = -1;
    const auto widen = [&](int row, std::vector<float>& out) {
        const float* line = probability + static_cast<std::size_t>(row) * size;
        for (int x = 0; x < width; ++x) {
            out[x] = blend(line[columns[x].first], line[columns[x].second], columns[x].weight);
        }
    };
    for (int y = 0; y < height; ++y) {
        if (rows[y].first != upper_row) {
            if (rows[y].first == lower_row) {
                std::swap(upper, lower);
                lower_row = -1;
            } else {
                widen(rows[y].first, upper);
            }
            upper_row = rows[y].first;
        }
        if (rows[y].second != lower_row) {
            widen(rows[y].second, lower);
            lower_row = rows[y].second;
        }
        const float* above = upper.data();
        const float* below = lower.data();
        const float weight = rows[y].weight;
        std::uint8_t* out = mask + static_cast<std::size_t>(y) * width;
        for (int x = 0; x < width; ++x) {
            out[x] = blend(above[x], below[x], weight) > threshold ? 255 : 0;
        }
    }
}

}  // namespace kdas
