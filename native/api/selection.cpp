// selection.cpp: the counts of a pruning point, for callers that choose before a session does.

#include <cmath>
#include <vector>

#include "api/boundary.h"
#include "api/lazygguf.h"
#include "base/error.h"
#include "prune/select.h"

using namespace lazygguf;

namespace {

void check_share(const char * name, double value) {
    if (!(value >= 0.0 && value <= 1.0)) {
        fail(status::invalid_argument, format("%s is %g, expected a value in [0, 1]", name, value));
    }
}

void check_count(int32_t n) {
    if (n < 0) {
        fail(status::invalid_argument, format("%d tokens, expected at least 0", n));
    }
}

} // namespace

extern "C" {

lazy_status lazy_keep_count(int32_t * out, double keep, int32_t n_tokens) {
    return guarded([&] {
        check_share("keep", keep);
        check_count(n_tokens);
        *out = keep_count(keep, n_tokens);
    });
}

lazy_status lazy_count_kept(int32_t * out, const float * scores, int32_t n, double keep, double keep_min, double mass) {
    return guarded([&] {
        check_share("keep", keep);
        check_share("keep_min", keep_min);
        check_share("mass", mass);
        check_count(n);
        if (keep_min > keep) {
            fail(status::invalid_argument, format("keep_min is %g, expected at most keep, %g", keep_min, keep));
        }
        std::vector<candidate> tokens;
        for (int32_t pos = 0; pos < n; ++pos) {
            if (!std::isnan(scores[pos])) {
                tokens.push_back(outside_candidate(pos, scores[pos], false));
            }
        }
        *out = count_kept(tokens, {keep, keep_min, mass}, n);
    });
}

} // extern "C"
