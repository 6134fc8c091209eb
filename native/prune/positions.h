// positions.h: lists of positions, which ascend, and spans of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace lazygguf {

// Positions [begin, end); none where end is not after begin.
struct position_span {
    int32_t begin = 0;
    int32_t end = 0;

    bool is_empty() const { return end <= begin; }
};

// Is the position one of these? They ascend.
inline bool contains(const std::vector<int32_t> & positions, int32_t pos) {
    return std::binary_search(positions.begin(), positions.end(), pos);
}

inline std::vector<int32_t> positions_of(position_span span) {
    std::vector<int32_t> out(static_cast<size_t>(std::max(span.end - span.begin, 0)));
    std::iota(out.begin(), out.end(), span.begin);
    return out;
}

// Every position of either list, once, ascending.
inline std::vector<int32_t> merged(const std::vector<int32_t> & a, const std::vector<int32_t> & b) {
    std::vector<int32_t> out;
    std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
    return out;
}

} // namespace lazygguf
