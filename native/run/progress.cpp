// progress.cpp: the share of a step's work that is done.

#include "run/progress.h"

namespace lazygguf {

int32_t tokens_done(const std::vector<segment_work> & segments, int32_t n_new) {
    double done = 0.0;
    double total = 0.0;
    for (const segment_work & segment : segments) {
        done += segment.n_done * segment.n_layers;
        total += segment.n_rows * segment.n_layers;
    }
    return static_cast<int32_t>(n_new * done / total);
}

} // namespace lazygguf
