// session.h: one conversation, and the steps that read its tokens.
//
// Owns what a conversation holds, and that a step leaves it whole: a failed one leaves everything as it was. What a
// step decides is prune/policy's business. Prefill, a later turn and decode are the same function, eval(). It runs a
// prompt segment by segment, each chosen for by the scores of the one before it; a plain decode step goes by what the
// step before it chose, so that all segments run as one graph.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "prune/policy.h"
#include "run/bytes.h"
#include "run/cache.h"
#include "run/compute.h"
#include "run/eval_params.h"
#include "run/ubatch.h"

namespace lazygguf {

struct session_params {
    int n_ctx = 0; // 0: n_ctx_train
    int n_ubatch = 512;
    thread_counts n_threads;
    cache_types types;
    int n_layer = 0; // layers read; 0: all. Fewer give no logits
};

// What a step did in one segment.
struct segment_report {
    int32_t n_computed = 0;
    std::vector<int32_t> live; // positions, ascending
    std::vector<float> scores; // by position, NaN where not live; empty where nothing was scored
};

// What a step gives.
struct step_result {
    std::vector<float> logits; // F32 [n_vocab], of the newest token; empty: none
    std::vector<segment_report> segments;
    int32_t n_new = 0;     // tokens that it added
    int32_t n_revived = 0; // old tokens that it computed
    work_count work;
};

// A state that a session goes back to. The rows that it held then are still in the caches, as they were: a row never
// changes, it is only taken out.
struct session_mark {
    int32_t n_tokens = -1;                  // -1: there is none
    std::vector<std::vector<int32_t>> held; // by segment: positions with a row, ascending
    std::vector<score_window> windows;
    step_memory memory;
    step_result result;
};

struct saved_state; // saved_state.h
struct state_shape;

class session {
  public:
    session(const model & mdl, const session_params & params, keep_schedule schedule);

    // Reads tokens[0..n) after those held. On failure the session is as it was.
    void eval(const int32_t * tokens, int32_t n, const eval_params & params);
    void reset();
    // Remembers the state: a trim to this many tokens brings it back, with what the last eval gave. What was read and
    // revived since then is forgotten, so that asking again gives the same. Lasts while single tokens are read, until a
    // shorter trim, a forget or a reset.
    void mark();
    void trim(int32_t n_tokens);
    void forget(const int32_t * positions, int32_t n);
    void cancel() { cancel_.store(true); }

    // The whole session as bytes, saved_bytes() of them: one of the same model, types and schedule that loads them goes
    // on as this one would. Of a load that fails, also by what the source throws, the session is as it was.
    uint64_t saved_bytes() const;
    void save(const byte_sink & sink) const;
    void load(const byte_source & source, uint64_t n_bytes);

    int32_t n_tokens() const { return n_tokens_; }
    const std::vector<int32_t> & tokens() const { return tokens_; } // ids, by position
    int32_t n_ctx() const { return params_.n_ctx; }
    int n_segments() const { return static_cast<int>(segments_.size()); }
    const segment_cache & segment(int s) const { return segments_[static_cast<size_t>(s)]; }
    const step_result & result() const { return result_; } // of the last eval
    // Scores at the point that ends a segment, by position, as the tokens of [begin, end) ask that the point remembers:
    // the question, and the newest token. Empty where it remembers none of them.
    std::vector<float> asked_by(int s, position_span asking) const;
    const std::string & notes() const { return notes_; } // what runs on the CPU though its layer does not; "" nothing

    std::atomic_flag busy = ATOMIC_FLAG_INIT; // held by the thread that is inside

  private:
    struct step; // one eval in progress: step.h

    const model & mdl_;
    session_params params_;
    keep_schedule schedule_;
    std::atomic<bool> cancel_{false};
    compute compute_;
    std::string notes_;

    bool is_on_one_device_ = false; // every layer, its K/V and aux rows and the output

    // What the conversation holds. A step adds to these as it goes; roll_back() takes it out again.
    std::vector<segment_cache> segments_;
    std::vector<score_window> windows_; // by pruning point
    std::vector<int32_t> tokens_;       // ids, by position

    // As the last step left it: commit() replaces these.
    int32_t n_tokens_ = 0;
    step_memory memory_;
    step_result result_;

    session_mark mark_;

    bool is_last(size_t s) const { return s + 1 == segments_.size(); }
    bool gives_logits() const { return params_.n_layer == mdl_.hp.n_layer; }
    const segment_cache * after(size_t s) const { return is_last(s) ? nullptr : &segments_[s + 1]; }
    void note_fallbacks(const cache_devices & devices);

    // The phases of eval() beside what prune/policy decides.
    void run_in_turn(step & st);
    void run_late(step & st);
    next_step choose_next(step & st) const;
    std::vector<float> score(const step & st, size_t s) const;
    void commit(step & st);
    void go_back();
    void roll_back(const step & st);

    // The parts of save() and load().
    state_shape shape() const;
    saved_state state() const;
    std::vector<segment_cache> load_segments(saved_state & state, const byte_source & source) const;

    // The parts of the two run functions.
    void reserve(const step & st, size_t s);
    void run_segment(step & st, size_t s);
    void run_as_one(step & st);
    void run_ubatch(step & st, size_t s, size_t begin, size_t end);
    ubatch take_rows(step & st, size_t s, size_t begin, size_t end);
    graph_shape shape_of(const step & st, size_t s, const ubatch & u, bool is_last_ubatch) const;
    void read_outputs(step & st, size_t s, const segment_graph & graph, const graph_inputs & in);
    void read_scores(size_t s, const segment_graph & graph, const graph_inputs & in);
    void read_logits(step & st, const segment_graph & graph);
    void report_progress(const step & st, size_t s, size_t n_done) const;
};

} // namespace lazygguf
