// kdas_segment: segment frames with a bundle, check it, and measure how long a frame takes.

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "errors.hpp"
#include "golden.hpp"
#include "images.hpp"
#include "segmenter.hpp"

namespace fs = std::filesystem;

namespace {

// The exit codes of `kdas-edge`.
constexpr int done = 0, internal_error = 1, wrong_input = 2, gate_failed = 3;

// Untimed inferences before a frame of another size is timed.
constexpr int warm_up = 5;

const char* const usage =
    R"(usage: kdas_segment --bundle DIR [--golden] [options] [FRAME ...]

Segments each FRAME (PNG, PPM, PGM; raw BGR with --size) with the bundle's camera model.

  --bundle DIR      the bundle; every file of it is compared with its hash first
  --golden          compare with the bundle's golden vectors; exit code 3 if they differ too much
  --out DIR         write a mask DIR/<name of the frame>.pgm, 255 where polyp
  --size WxH        each FRAME is a raw file of W x H x 3 bytes: blue, green, red
  --repeat N        segment each frame N times, for the percentiles (default 1)
  --precision P     fp32, fp16, int8 or int8_weights (default int8 where the bundle has it)
  --device D        of OpenVINO (default CPU)
  --threads N       of the CPU for one inference (default: OpenVINO chooses)

Exit codes: 0 done, 1 internal error, 2 the input is wrong, 3 the golden check failed.
)";

struct Arguments {
    fs::path bundle;
    fs::path out;
    std::string precision;
    kdas::Options options;
    std::vector<fs::path> frames;
    int width = 0;  // of raw frames, otherwise 0
    int height = 0;
    int repeat = 1;
    bool golden = false;
    bool help = false;
};

int positive(const std::string& option, const std::string& text) {
    int value = 0;
    const char* end = text.data() + text.size();
    if (std::from_chars(text.data(), end, value).ptr != end || value < 1 || value > 1000000) {
        throw kdas::UserError(option + " " + text + " is not a number above 0; correct it");
    }
    return value;
}

Arguments parse(const std::vector<std::string>& words) {
    Arguments arguments;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const std::string& word = words[i];
        const auto value = [&]() -> const std::string& {
            if (i + 1 >= words.size()) throw kdas::UserError(word + " needs a value; see --help");
            return words[++i];
        };
        if (word == "--help" || word == "-h") {
            arguments.help = true;
        } else if (word == "--bundle") {
            arguments.bundle = value();
        } else if (word == "--golden") {
            arguments.golden = true;
        } else if (word == "--out") {
            arguments.out = value();
        } else if (word == "--size") {
            const std::string size = value();
            const std::size_t x = size.find('x');
            if (x == std::string::npos) {
                throw kdas::UserError("--size " + size + " is not WxH; for example 1920x1080");
            }
            arguments.width = positive(word, size.substr(0, x));
            arguments.height = positive(word, size.substr(x + 1));
        } else if (word == "--repeat") {
            arguments.repeat = positive(word, value());
        } else if (word == "--precision") {
            arguments.precision = value();
        } else if (word == "--device") {
            arguments.options.device = value();
        } else if (word == "--threads") {
            arguments.options.threads = positive(word, value());
        } else if (word.rfind("-", 0) == 0) {
            throw kdas::UserError("option " + word + " is unknown; see --help");
        } else {
            arguments.frames.emplace_back(word);
        }
    }
    if (arguments.help) return arguments;
    if (arguments.bundle.empty()) throw kdas::UserError("no --bundle given; see --help");
    if (arguments.frames.empty() && !arguments.golden) {
        throw kdas::UserError("nothing to do; name a frame, or give --golden");
    }
    return arguments;
}

// Two frames of one name would have one mask; better said before an hour of work than after it.
void check_names(const Arguments& arguments) {
    std::set<std::string> stems;
    for (const fs::path& frame : arguments.frames) {
        if (!stems.insert(frame.stem().string()).second) {
            throw kdas::UserError("two frames would become " + frame.stem().string() +
                                  ".pgm; rename one");
        }
    }
}

// The value below which a share of the values lies, linear between neighbours as NumPy has it.
double percentile(const std::vector<double>& sorted, double share) {
    const double position = share * static_cast<double>(sorted.size() - 1);
    const auto low = static_cast<std::size_t>(position);
    const std::size_t high = std::min(low + 1, sorted.size() - 1);
    return sorted[low] + (sorted[high] - sorted[low]) * (position - static_cast<double>(low));
}

void print_latency(const char* stage, std::vector<double> milliseconds) {
    std::sort(milliseconds.begin(), milliseconds.end());
    std::printf("%-10s %8.2f %8.2f %8.2f %8.2f\n", stage, percentile(milliseconds, 0.5),
                percentile(milliseconds, 0.9), percentile(milliseconds, 0.99), milliseconds.back());
}

int report_golden(kdas::Segmenter& segmenter, const kdas::Bundle& bundle,
                  const std::string& precision) {
    const kdas::GoldenResult result = kdas::check_golden(segmenter, bundle, precision);
    std::printf("golden: %d frames, %.3f%% of mask pixels differ (at most %.2f%%), "
                "largest probability difference %.2g: %s\n",
                result.frames, 100 * result.disagreement, 100 * result.allowed,
                result.largest_difference, result.passed() ? "pass" : "FAIL");
    if (result.passed()) return done;
    std::fprintf(stderr, "error: %s does not reproduce its golden vectors on this device; do not "
                         "use it here, try another device or precision\n",
                 bundle.name.c_str());
    return gate_failed;
}

void segment_frames(kdas::Segmenter& segmenter, const Arguments& arguments) {
    std::vector<double> inference, mask, total;
    int height = 0, width = 0;
    std::printf("%-32s %8s %8s\n", "frame", "polyp %", "ms");
    for (const fs::path& path : arguments.frames) {
        const kdas::Image image =
            arguments.width > 0 ? kdas::read_raw(path, arguments.width, arguments.height)
                                : kdas::read_image(path);
        const kdas::Frame frame{image.height, image.width, image.bgr.data()};
        if (image.height != height || image.width != width) {
            for (int i = 0; i < warm_up; ++i) segmenter.segment(frame);
            height = image.height;
            width = image.width;
        }
        for (int i = 0; i < arguments.repeat; ++i) {
            const kdas::Result& timed = segmenter.segment(frame);
            inference.push_back(timed.inference_ms);
            mask.push_back(timed.mask_ms);
            total.push_back(timed.inference_ms + timed.mask_ms);
        }
        const kdas::Result& result = segmenter.result();
        const auto marked = std::count(result.mask.begin(), result.mask.end(), 255);
        std::printf("%-32s %8.2f %8.1f\n", path.filename().string().c_str(),
                    100.0 * static_cast<double>(marked) / static_cast<double>(result.mask.size()),
                    total.back());
        if (!arguments.out.empty()) {
            kdas::write_pgm(arguments.out / (path.stem().string() + ".pgm"), result.mask,
                            result.width, result.height);
        }
    }
    std::printf("\n%-10s %8s %8s %8s %8s   ms, %zu timed frames\n", "stage", "p50", "p90", "p99",
                "max", total.size());
    print_latency("inference", inference);
    print_latency("mask", mask);
    print_latency("total", total);
}

int run(const Arguments& arguments) {
    if (!arguments.out.empty()) {
        check_names(arguments);
        fs::create_directories(arguments.out);
    }
    const kdas::Bundle bundle = kdas::open_bundle(arguments.bundle);
    const kdas::ModelFile& model = bundle.camera_model(arguments.precision);
    kdas::Segmenter segmenter(bundle, model, arguments.options);
    std::printf("%s %s camera: %s\n", bundle.name.c_str(), model.precision.c_str(),
                segmenter.effective().c_str());
    if (arguments.golden) {
        const int code = report_golden(segmenter, bundle, model.precision);
        if (code != done) return code;
    }
    if (!arguments.frames.empty()) segment_frames(segmenter, arguments);
    return done;
}

}  // namespace

int main(int count, char** words) {
    try {
        const Arguments arguments = parse({words + 1, words + count});
        if (arguments.help) {
            std::fputs(usage, stdout);
            return done;
        }
        return run(arguments);
    } catch (const kdas::UserError& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return wrong_input;
    } catch (const fs::filesystem_error& error) {
        std::fprintf(stderr, "error: %s: %s; check the path and its permissions\n",
                     error.path1().string().c_str(), error.code().message().c_str());
        return wrong_input;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "internal error: %s\n", error.what());
        return internal_error;
    }
}
