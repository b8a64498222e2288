// Opening a bundle: nothing in it is used before its hash has been compared with the manifest.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace kdas {

struct ModelFile {
    std::string precision;  // fp32, fp16, int8 or int8_weights
    std::string format;     // openvino, onnx or torch
    std::string preset;     // camera, core, …
    std::string path;       // relative to the bundle
};

// A frame with the probabilities that the network gave where it was trained.
struct GoldenVector {
    std::string frame;                            // PNG, relative to the bundle
    std::map<std::string, std::string> expected;  // per precision a map, see golden.hpp
};

struct Bundle {
    std::filesystem::path path;  // absolute, symbolic links resolved
    std::string name;
    int size = 0;          // S: side of the network's square input and output, in pixels
    double threshold = 0;  // polyp where the probability is above this
    std::vector<ModelFile> models;
    std::vector<GoldenVector> golden;
    // per precision the share of mask pixels that may differ from the golden vectors
    std::map<std::string, double> disagreement;

    // The OpenVINO file that takes camera frames. Without a precision: int8 where the bundle has
    // it, otherwise fp32. Throws UserError if there is none.
    const ModelFile& camera_model(const std::string& precision) const;

    // The absolute path of a file that the manifest names.
    std::filesystem::path file(const std::string& relative) const { return path / relative; }
};

// Opens a bundle and compares the manifest with its own digest, size and SHA-256 of every file with
// the manifest. Throws UserError: not a bundle, an unknown schema, a changed manifest, or a file that
// is changed, missing, not named in the manifest, or a link out of the bundle.
Bundle open_bundle(const std::filesystem::path& path);

}  // namespace kdas
