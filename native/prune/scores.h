// scores.h: how much each token was looked at, by the tokens that ask.
//
// Owns the attention rows of one pruning point, those of this step and those that earlier steps left: the newest
// n_query tokens ask together even when they came one by one. Plain floats by position; no ggml, no cache.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "prune/positions.h"

namespace lazygguf {

// What one token looked at: (n_head) rows by position, each as long as the positions up to its own.
using attention_rows = std::vector<std::vector<float>>;

class score_window {
  public:
    // n_head: attention rows of each asking token, 1 for a layer whose mean over all heads counts.
    // query_max: the maximum over the asking tokens counts, not their mean.
    score_window(int n_head, bool query_max) : n_head_(n_head), query_max_(query_max) {}

    bool has(int32_t pos) const { return rows_.count(pos) > 0; }
    // Remembers what the token at `pos` looked at: (n_head) rows by position, 0 where a position was not live.
    void add(int32_t pos, attention_rows by_head);
    // The same, of rows that another window has too.
    void add(int32_t pos, std::shared_ptr<const attention_rows> by_head);
    // Forgets every asking token that is not among these (ascending).
    void keep_only(const std::vector<int32_t> & positions);
    // Forgets the positions >= n_tokens.
    void trim(int32_t n_tokens);

    int n_head() const { return n_head_; }
    // By asking token.
    const std::map<int32_t, std::shared_ptr<const attention_rows>> & rows() const { return rows_; }

    // The score of each position below n_tokens: the mean (or maximum) over these asking tokens, head by head, and the
    // best head's.
    std::vector<float> combine(const std::vector<int32_t> & asking, int32_t n_tokens) const;

    // The same by those of [begin, end) that are remembered; empty where none is. Slower, and leaves no sums behind.
    std::vector<float> asked_by(position_span asking, int32_t n_tokens) const;

  private:
    int n_head_;
    bool query_max_;
    // shared: a copy of the window is a note of which rows it has
    std::map<int32_t, std::shared_ptr<const attention_rows>> rows_;

    // The sums, or maxima, of all askers of the last combine() but its last one. While decoding, a question goes on to
    // ask and only the newest token is another one: its row is added, not all rows again.
    struct partial {
        std::vector<int32_t> asking;           // ascending; empty: there are none
        std::vector<std::vector<double>> sums; // by head and position
    };
    mutable partial partial_;

    void add_row(std::vector<double> & sum, int32_t pos, size_t head) const;
    void raise_to(std::vector<float> & best, const std::vector<double> & sum, size_t n_asking) const;
    const partial & partial_of(const std::vector<int32_t> & asking) const;
};

} // namespace lazygguf
