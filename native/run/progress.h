// progress.h: how far a step is, in tokens. Numbers only.
//
// A step computes fewer rows in each segment, so tokens are counted by work: rows times layers.
#pragma once

#include <cstdint>
#include <vector>

namespace lazygguf {

struct segment_work {
    double n_rows = 0; // that the step computes in the segment; an estimate where the segment has not begun
    double n_done = 0; // of them
    int n_layers = 0;
};

// How many of n_new tokens the work done so far stands for; all of them where it is all done.
int32_t tokens_done(const std::vector<segment_work> & segments, int32_t n_new);

} // namespace lazygguf
