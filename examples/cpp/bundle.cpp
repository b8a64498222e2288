#include "bundle.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <iterator>

#include "errors.hpp"
#include "json.hpp"
#include "sha256.hpp"

namespace fs = std::filesystem;

namespace kdas {

namespace {

const char* const manifest_name = "manifest.json";
// A real manifest holds some tens of kilobytes; a device must not be filled by a hostile one.
constexpr std::uintmax_t manifest_limit = 16 * 1024 * 1024;
const std::vector<std::string> readable_schemas = {"1.0", "1.1", "1.2", "1.3"};
// The schemas of the first release, whose manifests have no digest of their own.
const std::vector<std::string> schemas_without_digest = {"1.0", "1.1", "1.2"};
constexpr int largest_size = 8192;

struct FileRecord {
    std::uintmax_t bytes;
    std::string sha256;
};

// What Python's reader also refuses: absolute, "..", a backslash or a drive.
std::string inside(const std::string& path) {
    const fs::path pure(path);
    const bool leaves = path.empty() || path.front() == '/' ||
                        path.find_first_of("\\:") != std::string::npos ||
                        std::find(pure.begin(), pure.end(), "..") != pure.end();
    if (leaves) throw JsonError("path '" + path + "' leaves the bundle");
    return path;
}

bool leaves(const fs::path& entry, const fs::path& root) {
    std::error_code error;
    const fs::path target = fs::weakly_canonical(entry, error);
    if (error) return true;
    const fs::path relative = target.lexically_relative(root);
    return relative.empty() || *relative.begin() == "..";
}

std::string read_manifest(const fs::path& path) {
    std::error_code error;
    const std::uintmax_t bytes = fs::file_size(path, error);
    if (!error && bytes > manifest_limit) {
        throw UserError(path.string() + " is too large to be a manifest; export the bundle again");
    }
    std::ifstream file(path, std::ios::binary);
    if (error || !file) throw UserError("cannot read " + path.string() + "; check permissions");
    return {std::istreambuf_iterator<char>(file), {}};
}

void check_schema(const Json& manifest, const fs::path& source) {
    const std::string version = manifest.at("schema_version").string();
    if (std::count(readable_schemas.begin(), readable_schemas.end(), version) != 0) return;
    std::string known;
    for (const std::string& schema : readable_schemas) {
        known += (known.empty() ? "" : ", ") + schema;
    }
    const Json* provenance = manifest.find("provenance");
    const std::string writer =
        provenance == nullptr ? "that wrote it" : provenance->at("code_version").string();
    throw UserError(source.string() + " has schema version '" + version + "', this program reads " +
                    known + "; build the example of kdas-edge " + writer);
}

// The manifest's own digest is the SHA-256 of its bytes with the 64 digits themselves as zeros.
void check_digest(const Json& manifest, const std::string& text) {
    const std::string version = manifest.at("schema_version").string();
    const Json* own = manifest.find("sha256");
    if (std::count(schemas_without_digest.begin(), schemas_without_digest.end(), version) != 0) {
        if (own == nullptr) return;
        throw JsonError("it says schema " + version + ", which has no digest, and holds one");
    }
    const std::string digest = own == nullptr ? "" : own->string();
    const bool well_formed =
        digest.size() == 64 && digest.find_first_not_of("0123456789abcdef") == std::string::npos;
    const std::size_t at = well_formed ? text.find(digest) : std::string::npos;
    if (at != std::string::npos && text.find(digest, at + 1) == std::string::npos) {
        std::string blank = text;
        blank.replace(at, digest.size(), digest.size(), '0');
        if (sha256_of_text(blank) == digest) return;
    }
    throw JsonError("it does not match its own digest, it was changed or damaged");
}

Bundle parse_bundle(const Json& manifest) {
    Bundle bundle;
    bundle.name = manifest.at("name").string();
    const double size = manifest.at("size").number();
    if (size < 1 || size > largest_size || size != std::floor(size)) {
        throw JsonError("size is not a number of pixels");
    }
    bundle.size = static_cast<int>(size);
    bundle.threshold = manifest.at("threshold").number();
    for (const Json& model : manifest.at("models").items()) {
        bundle.models.push_back({model.at("precision").string(), model.at("format").string(),
                                 model.at("preset").string(), inside(model.at("path").string())});
    }
    for (const Json& golden : manifest.at("golden").items()) {
        GoldenVector vector{inside(golden.at("frame").string()), {}};
        const Json& expected = golden.at("expected");
        for (const std::string& precision : expected.keys()) {
            vector.expected[precision] = inside(expected.at(precision).string());
        }
        bundle.golden.push_back(vector);
    }
    const Json& tolerances = manifest.at("tolerances");
    for (const std::string& precision : tolerances.keys()) {
        bundle.disagreement[precision] = tolerances.at(precision).at("disagreement").number();
    }
    return bundle;
}

std::map<std::string, FileRecord> parse_files(const Json& manifest) {
    std::map<std::string, FileRecord> records;
    const Json& files = manifest.at("files");
    for (const std::string& relative : files.keys()) {
        const double bytes = files.at(relative).at("bytes").number();
        if (bytes < 0 || bytes > 1e15) throw JsonError("'" + relative + "' has an impossible size");
        records[inside(relative)] = {static_cast<std::uintmax_t>(bytes),
                                     files.at(relative).at("sha256").string()};
    }
    return records;
}

// Every file that is used must have a hash, or it would be read unchecked.
void check_references(const Bundle& bundle, const std::map<std::string, FileRecord>& records) {
    std::vector<std::string> used;
    for (const ModelFile& model : bundle.models) {
        used.push_back(model.path);
        if (model.format == "openvino") {
            used.push_back(fs::path(model.path).replace_extension(".bin").generic_string());
        }
    }
    for (const GoldenVector& vector : bundle.golden) {
        used.push_back(vector.frame);
        for (const auto& [precision, path] : vector.expected) used.push_back(path);
    }
    for (const std::string& relative : used) {
        if (records.count(relative) == 0) {
            throw UserError(bundle.path.string() + ": '" + relative +
                            "' is used but has no hash in manifest.json; export the bundle again");
        }
    }
}

void refuse_extra_files(const fs::path& root, const std::map<std::string, FileRecord>& records) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root)) {
        const std::string relative = entry.path().lexically_relative(root).generic_string();
        // a link to a folder is not entered, and judged like a file
        if (entry.is_symlink() && leaves(entry.path(), root)) {
            throw UserError(root.string() + ": '" + relative +
                            "' is a link that leaves the bundle; export it again");
        }
        if (entry.is_directory() && !entry.is_symlink()) continue;
        if (relative != manifest_name && records.count(relative) == 0) {
            throw UserError(root.string() + ": '" + relative +
                            "' is not in manifest.json; remove it, or export the bundle again");
        }
    }
}

void check_file(const fs::path& root, const std::string& relative, const FileRecord& record) {
    const fs::path path = root / relative;
    if (!fs::is_regular_file(path)) {
        throw UserError(root.string() + ": file '" + relative +
                        "' is missing; copy the bundle again");
    }
    if (fs::file_size(path) != record.bytes || sha256_of_file(path) != record.sha256) {
        throw UserError(root.string() + ": '" + relative +
                        "' does not match its hash in manifest.json; the bundle was changed or "
                        "damaged, copy it again");
    }
}

}  // namespace

Bundle open_bundle(const fs::path& path) {
    if (!fs::exists(path)) {
        throw UserError("bundle " + path.string() + " does not exist; check the path");
    }
    if (!fs::is_directory(path)) {
        throw UserError("bundle " + path.string() +
                        " is not a directory; name the folder of manifest.json");
    }
    const fs::path root = fs::canonical(path);
    const fs::path source = root / manifest_name;
    if (!fs::is_regular_file(source)) {
        throw UserError(path.string() +
                        " has no manifest.json, so it is not a bundle; check the path");
    }
    Bundle bundle;
    std::map<std::string, FileRecord> records;
    try {
        const std::string text = read_manifest(source);
        const Json manifest = Json::parse(text);
        check_schema(manifest, source);
        check_digest(manifest, text);
        bundle = parse_bundle(manifest);
        records = parse_files(manifest);
    } catch (const JsonError& error) {
        throw UserError(source.string() + ": " + error.what() + "; export the bundle again");
    }
    bundle.path = root;
    try {
        check_references(bundle, records);
        refuse_extra_files(root, records);
        for (const auto& [relative, record] : records) check_file(root, relative, record);
    } catch (const fs::filesystem_error& error) {
        throw UserError("cannot read " + error.path1().string() + ": " +
                        error.code().message() + "; check permissions");
    }
    return bundle;
}

const ModelFile& Bundle::camera_model(const std::string& precision) const {
    const auto find = [&](const std::string& wanted) {
        return std::find_if(models.begin(), models.end(), [&](const ModelFile& model) {
            return model.format == "openvino" && model.preset == "camera" &&
                   model.precision == wanted;
        });
    };
    auto found = find(precision.empty() ? "int8" : precision);
    if (found == models.end() && precision.empty()) found = find("fp32");
    if (found == models.end()) {
        throw UserError("bundle " + name + " has no OpenVINO model of preset camera" +
                        (precision.empty() ? "" : " in " + precision) +
                        "; export it with --preset core,camera");
    }
    return *found;
}

}  // namespace kdas
