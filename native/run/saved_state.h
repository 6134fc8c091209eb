// saved_state.h: what a session holds beside its K/V and aux rows, as bytes and back.
//
// Owns the encoding and every check that a restored state needs: after read_state() whatever the bytes were, a step can
// run on it. docs/sessions.md describes the bytes. The rows themselves, and what is done with a state, are the
// session's business.
#pragma once

#include <vector>

#include "run/bytes.h"
#include "run/session.h"

namespace lazygguf {

// What a saved state must agree with: the model, the cache types and the segments of the session that restores it.
struct state_shape {
    std::vector<int32_t> numbers; // all of it, to be compared: see shape() in saved_session.cpp
    int32_t n_vocab = 0;          // token ids are below it
    int32_t n_ctx = 0;            // the restored tokens must fit; it may be another one than where they were saved
    bool gives_logits = true;
    std::vector<score_window> windows; // empty ones, by pruning point
};

struct saved_state {
    std::vector<int32_t> tokens;
    std::vector<cell_map> cells; // by segment
    std::vector<score_window> windows;
    step_memory memory;
    step_result result;
    session_mark mark;
};

std::vector<char> write_state(const state_shape & shape, const saved_state & state);

// Fails with INVALID_ARGUMENT where the state is of another model or schedule, CONTEXT_FULL where its tokens do not
// fit, BAD_FILE where a value is none that a session can have.
saved_state read_state(const state_shape & shape, const std::vector<char> & bytes);

// By segment, the positions whose aux rows a later step may read: those that wait there, or will again once the session
// goes back to its mark. Ascending.
std::vector<std::vector<int32_t>> waiting_rows(const saved_state & state);

} // namespace lazygguf
