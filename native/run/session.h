// session.h: one conversation. The whole method stands in eval().
//
// Owns the step: which rows are computed in which segment, what lives on, what is revived, and that a failed step
// leaves everything as it was. Prefill, a later turn and decode are the same function.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "prune/schedule.h"
#include "prune/scores.h"
#include "prune/select.h"
#include "run/cache.h"
#include "run/compute.h"
#include "run/ubatch.h"

namespace lazygguf {

struct session_params {
    int n_ctx = 0; // 0: n_ctx_train
    int n_ubatch = 512;
    thread_counts n_threads;
    cache_types types;
    int n_layer = 0; // layers read; 0: all. Fewer give no logits
};

// What the asking rows look at, for those who study it.
struct attention_request {
    std::vector<int> layers; // ascending; empty: none
    bool by_head = false;    // else the mean over heads
    bool by_query = false;   // else the mean over asking rows; by_head is by_query too
    float * out = nullptr;   // by_head (n_layers, n_query, n_head, n_tokens), by_query (n_layers, n_query, n_tokens),
                             // else (n_layers, n_tokens)
    int64_t n_out = 0;
};

struct eval_params {
    int32_t query_begin = -1; // [begin, end) asks where a point's n_query is 0; -1: see session::question_of
    int32_t query_end = -1;
    std::function<bool(int32_t n_done, int32_t n_total)> progress; // may be empty; false cancels
    const float * scores = nullptr; // (n_scores) by position, for the point before layer 0; null: none
    int32_t n_scores = 0;
    attention_request attention;
    std::vector<int32_t> protect; // positions never pruned, in this step and later ones; ascending
};

struct position_span {
    int32_t begin = 0;
    int32_t end = 0;
};

// What the last eval did in one segment.
struct segment_report {
    int32_t n_computed = 0;
    std::vector<int32_t> live; // positions, ascending
    std::vector<float> scores; // by position, NaN where not live; empty where nothing was scored
};

class session {
  public:
    session(const model & mdl, const session_params & params, keep_schedule schedule);

    void eval(const int32_t * tokens, int32_t n, const eval_params & params);
    void reset();
    void trim(int32_t n_tokens);
    void forget(const int32_t * positions, int32_t n);
    void cancel() { cancel_.store(true); }

    int32_t n_tokens() const { return n_tokens_; }
    int32_t n_ctx() const { return params_.n_ctx; }
    const float * logits() const { return logits_.empty() ? nullptr : logits_.data(); }
    bool gives_logits() const { return params_.n_layer == mdl_.hp.n_layer; }
    int n_segments() const { return static_cast<int>(segments_.size()); }
    const segment_cache & segment(int s) const { return segments_[static_cast<size_t>(s)]; }
    const std::vector<segment_report> & reports() const { return reports_; }
    int32_t n_new() const { return n_new_; }
    int32_t n_revived() const { return n_revived_; }
    const traffic & moved() const { return moved_; }     // by the last eval
    const std::string & notes() const { return notes_; } // what runs on the CPU though its layer does not; "" nothing

    std::atomic_flag busy = ATOMIC_FLAG_INIT; // held by the thread that is inside

  private:
    struct step; // one eval in progress: step.h

    const model & mdl_;
    session_params params_;
    keep_schedule schedule_;
    std::atomic<bool> cancel_{false};
    compute compute_;
    traffic moved_;
    std::string notes_;
    std::vector<segment_cache> segments_;
    std::vector<score_window> windows_; // by pruning point

    int32_t n_tokens_ = 0;
    std::vector<int32_t> tokens_;  // ids, by position
    std::vector<int32_t> entered_; // positions that lived before layer 0 in the last eval, ascending
    int32_t n_new_ = 0;            // of the last eval
    int32_t n_revived_ = 0;
    double saved_ = 0;               // tokens that the next decode step may revive, where mean_revive limits them
    std::vector<int32_t> protected_; // by the caller's word, ascending
    position_span question_;         // who asks where a point's n_query is 0
    std::vector<float> logits_;
    std::vector<segment_report> reports_;

    void note_fallbacks(const cache_devices & devices);
    void check_arguments(const int32_t * tokens, int32_t n, const eval_params & params) const;
    void check_protected(const eval_params & params, int32_t n) const;
    bool is_last(int s) const { return s == n_segments() - 1; }
    void run(step & st);
    void run_segment(step & st, int s);
    void run_ubatch(step & st, int s, size_t begin, size_t end);
    graph_shape shape_of(const step & st, int s, const ubatch & u, bool is_last_ubatch) const;
    void read_scores(const step & st, int s, const segment_graph & graph, const graph_inputs & in);
    void read_logits(step & st, const segment_graph & graph);
    void report_progress(step & st, int s, size_t n_done) const;
    void commit(step & st);
    void roll_back(const step & st);

    // recording.cpp
    void check_attention(const eval_params & params, int32_t n) const;
    void begin_recording(step & st) const;
    void read_attention(step & st, int s, const segment_graph & graph, const graph_inputs & in);
    void finish_recording(const step & st) const;

    // choices.cpp
    bool has_span(const step & st) const;
    bool is_unasked(const step & st) const;
    position_span question_of(const step & st) const;
    std::vector<int32_t> query_of(const step & st, int s) const;
    void find_asking(step & st) const;
    void enter(step & st) const;
    std::vector<int32_t> select_entering(const step & st) const;
    std::vector<float> score(const step & st, int s) const;
    std::vector<candidate> select_live(const step & st, int s) const;
    int32_t revive_budget(const step & st, int s) const;
    double saved_after(const step & st) const;
    void revive(step & st, int s, const std::vector<candidate> & live) const;
    void choose(step & st, int s) const;
};

} // namespace lazygguf
