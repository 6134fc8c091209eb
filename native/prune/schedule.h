// schedule.h: the keep schedule, where and how much is pruned. Numbers only.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace lazygguf {

constexpr int MAX_SEGMENTS = 64;
constexpr int DEFAULT_QUERY = 24; // newest tokens that ask where no question is known
constexpr int MAX_QUERY = 128;    // tokens of a question that ask, the last ones

// A layer whose attention counts.
struct scored_layer {
    int il;
    std::vector<int> heads; // empty: the mean over all heads

    bool operator==(const scored_layer & o) const { return il == o.il && heads == o.heads; }
};

struct pruning_point {
    int il;                           // 0-based; ascending over the points; -1: before layer 0, by scores from outside
    double keep;                      // (0, 1]; never rising over the points
    std::vector<scored_layer> scored; // whose attention counts, by maximum; of the segment that ends here
    int n_query;                      // 0: the query span given to eval
    int pool;                         // average over this many neighbours by position; odd
    double mass;     // the fewest tokens with this share of the scores go on, at most keep, at least keep_min
    double keep_min; // share of the tokens in the context
    bool query_max;  // over the asking tokens; else their mean
};

struct keep_schedule {
    std::optional<pruning_point> entry; // the point before layer 0
    std::vector<pruning_point> points;  // the others: each ends a segment
    int n_sink = 0;
    int min_prompt = 0;
    int max_revive = -1; // -1: unlimited
    double revive_margin = 0.0;
    double mean_revive = 0.0;   // 0: as many in every decode step as max_revive allows
    bool decode_cached = false; // a decode step attends to all that a segment holds
    bool dense_unasked = false; // without a query span, where one would ask, a prompt runs dense

    bool is_dense() const { return !entry && points.empty(); }
};

// Fails with invalid_argument and the value where a number does not fit the model.
void check_schedule(const keep_schedule & schedule, int n_layer, int n_head);

// By layer, the share of the tokens that it computes when a long prompt is read: the keep of the points before it.
std::vector<double> layer_shares(const keep_schedule & schedule, int n_layer);

} // namespace lazygguf
