// step.h: one eval in progress, known to the parts of a session only.
#pragma once

#include <vector>

#include "run/session.h"

namespace lazygguf {

struct session::step {
    const eval_params & params;
    int32_t n_past = 0;
    int32_t n_tokens = 0;
    bool is_dense = false;
    position_span question;
    std::vector<std::vector<int32_t>> query; // by segment: positions that ask at its end, ascending; none at the last's
    std::vector<int32_t> asking;             // all of them and the newest: never pruned
    std::vector<int32_t> kept_out;           // by the caller's word: never pruned, ascending
    std::vector<int32_t> entered;            // positions that live before layer 0, ascending
    std::vector<int32_t> live;               // candidates of the current segment, ascending
    std::vector<int32_t> rows;               // positions to compute in it, ascending
    std::vector<float> logits;
    std::vector<std::vector<int32_t>> added; // by segment: positions given a K/V row
    std::vector<segment_report> reports;
    std::vector<int32_t> revived; // old positions computed in this step, each once
    std::vector<float> attention; // what is recorded, in the form of its request

    explicit step(const eval_params & how) : params(how) {}
    bool is_protected(int32_t pos, int32_t n_sink) const {
        return pos < n_sink || contains(asking, pos) || contains(kept_out, pos);
    }
    bool is_decode() const { return n_past > 0 && n_tokens - n_past == 1; }
    // May fewer go on than live? Known before the segment runs: nobody need ask where all stay.
    bool prunes(const keep_schedule & schedule, int s) const {
        const pruning_point & point = schedule.points[static_cast<size_t>(s)];
        const double least = point.mass < 1.0 ? point.keep_min : point.keep;
        return !is_dense && least < 1.0 && static_cast<int32_t>(live.size()) > keep_count(least, n_tokens);
    }
};

} // namespace lazygguf
