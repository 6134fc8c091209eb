// saved_state.cpp: the bytes of a session's state, and the checks.

#include "run/saved_state.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lazygguf {
namespace {

using positions = std::vector<int32_t>;

[[noreturn]] void bad(const char * what) { fail(status::bad_file, format("the saved session is damaged: %s", what)); }

void check(bool is_right, const char * what) {
    if (!is_right) {
        bad(what);
    }
}

// Ascending, each once, all in [0, n).
void check_positions(const positions & list, int32_t n, const char * what) {
    const bool rises = std::adjacent_find(list.begin(), list.end(), std::greater_equal<>()) == list.end();
    check(rises && (list.empty() || (list.front() >= 0 && list.back() < n)), what);
}

bool is_subset(const positions & of, const positions & all) {
    return std::includes(all.begin(), all.end(), of.begin(), of.end());
}

positions without(const positions & all, const positions & gone) {
    positions out;
    std::set_difference(all.begin(), all.end(), gone.begin(), gone.end(), std::back_inserter(out));
    return out;
}

std::vector<positions> positions_held(const std::vector<cell_map> & cells) {
    std::vector<positions> held;
    held.reserve(cells.size());
    for (const cell_map & map : cells) {
        held.push_back(map.positions());
    }
    return held;
}

// ---- cell maps ----

cell_map read_cells(byte_reader & in, int32_t n_tokens, int32_t n_ctx) {
    std::vector<int32_t> by_row = in.list<int32_t>();
    check(by_row.size() <= static_cast<size_t>(n_ctx), "a segment has more rows than the context has tokens");
    check(by_row.empty() || by_row.back() >= 0, "a segment's last row is free");
    positions used;
    std::copy_if(by_row.begin(), by_row.end(), std::back_inserter(used), [](int32_t pos) { return pos != -1; });
    std::sort(used.begin(), used.end());
    check_positions(used, n_tokens, "a row has a position that is not in the context, or that another row has");
    return cell_map(std::move(by_row));
}

// ---- what asking tokens looked at ----

// `before`: a window some of whose rows are these; they are named, not written again. Null: none.
void write_window(byte_writer & out, const score_window & window, const score_window * before) {
    out.number(static_cast<uint32_t>(window.rows().size()));
    for (const auto & [pos, rows] : window.rows()) {
        const auto shared = before ? before->rows().find(pos) : window.rows().end();
        const bool is_shared = before != nullptr && shared != before->rows().end() && shared->second == rows;
        out.number(pos);
        out.number(static_cast<uint8_t>(is_shared));
        for (size_t h = 0; h < rows->size() && !is_shared; ++h) {
            out.values_of((*rows)[h]);
        }
    }
}

score_window read_window(byte_reader & in, const score_window & empty, int32_t n_tokens, const score_window * before) {
    score_window window = empty;
    const auto n = in.number<uint32_t>();
    int32_t last = -1;
    for (uint32_t i = 0; i < n; ++i) {
        const auto pos = in.number<int32_t>();
        check(pos > last && pos < n_tokens, "a token that asked is not in the context");
        last = pos;
        if (in.number<uint8_t>() != 0) {
            check(before != nullptr && before->has(pos), "a token that asked has no scores");
            window.add(pos, before->rows().at(pos));
            continue;
        }
        attention_rows by_head;
        for (int h = 0; h < window.n_head(); ++h) {
            by_head.push_back(in.values<float>(static_cast<size_t>(pos) + 1));
        }
        window.add(pos, std::move(by_head));
    }
    return window;
}

// ---- what the last step left ----

void write_memory(byte_writer & out, const step_memory & memory) {
    out.list(memory.entered);
    out.list(memory.protect);
    out.number(memory.question.begin);
    out.number(memory.question.end);
    out.number(memory.n_saved);
    out.number(memory.next.n_past);
    out.number(static_cast<uint32_t>(memory.next.segments.size()));
    for (const choice & c : memory.next.segments) {
        out.list(c.live);
        out.list(c.rows);
        out.list(c.revived);
    }
}

// held: by segment, the positions that have K/V rows in this state.
step_memory read_memory(byte_reader & in, int32_t n_tokens, const std::vector<positions> & held) {
    step_memory memory;
    memory.entered = in.list<int32_t>();
    memory.protect = in.list<int32_t>();
    check_positions(memory.entered, n_tokens, "a token that entered is not in the context");
    check_positions(memory.protect, n_tokens, "a protected token is not in the context");
    memory.question.begin = in.number<int32_t>();
    memory.question.end = in.number<int32_t>();
    const position_span & q = memory.question; // of tokens that a trim may have taken since
    check(q.begin >= 0 && q.end >= q.begin && q.end - q.begin <= MAX_QUERY, "the question is no span of tokens");
    memory.n_saved = in.number<double>();
    check(memory.n_saved >= 0 && memory.n_saved <= std::numeric_limits<int32_t>::max(),
          "the number of tokens to revive is none");
    next_step & next = memory.next;
    next.n_past = in.number<int32_t>();
    const auto n_segments = in.number<uint32_t>();
    check(next.n_past == (n_segments == 0 ? -1 : n_tokens) && (n_segments == 0 || n_segments == held.size()),
          "the next step is chosen for another context");
    next.segments.resize(n_segments);
    for (size_t s = 0; s < n_segments; ++s) {
        choice & c = next.segments[s];
        c.live = in.list<int32_t>();
        c.rows = in.list<int32_t>();
        c.revived = in.list<int32_t>();
        check_positions(c.live, n_tokens, "a token of the next step is not in the context");
        check_positions(c.rows, n_tokens, "a token of the next step is not in the context");
        check_positions(c.revived, n_tokens, "a token of the next step is not in the context");
        if (s == 0) {
            check(c.live.empty() && c.rows.empty() && c.revived.empty(), "the next step chose for the first segment");
            continue;
        }
        // what is computed lives, has no rows yet, and has come through the segment before; all else has its rows
        positions before = held[s - 1];
        const positions & computed_before = next.segments[s - 1].rows;
        before.insert(before.end(), computed_before.begin(), computed_before.end());
        std::sort(before.begin(), before.end());
        check(is_subset(c.rows, c.live) && without(c.rows, held[s]).size() == c.rows.size() &&
                  is_subset(c.rows, before) && is_subset(without(c.live, c.rows), held[s]),
              "the next step chose tokens that have no rows");
    }
    return memory;
}

void write_result(byte_writer & out, const step_result & result) {
    out.list(result.logits);
    out.number(result.n_new);
    out.number(result.n_revived);
    out.number(result.work.moved.to_devices);
    out.number(result.work.moved.to_host);
    out.number(result.work.n_submissions);
    out.number(result.work.n_waits);
    out.number(static_cast<uint32_t>(result.segments.size()));
    for (const segment_report & report : result.segments) {
        out.number(report.n_computed);
        out.list(report.live);
        out.list(report.scores);
    }
}

step_result read_result(byte_reader & in, const state_shape & shape, int32_t n_tokens, size_t n_segments) {
    step_result result;
    result.logits = in.list<float>();
    check(result.logits.empty() || (shape.gives_logits && result.logits.size() == static_cast<size_t>(shape.n_vocab)),
          "the logits are not one for each token of the vocabulary");
    check(std::all_of(result.logits.begin(), result.logits.end(), [](float x) { return std::isfinite(x); }),
          "the logits are not finite");
    result.n_new = in.number<int32_t>();
    result.n_revived = in.number<int32_t>();
    result.work.moved.to_devices = in.number<uint64_t>();
    result.work.moved.to_host = in.number<uint64_t>();
    result.work.n_submissions = in.number<int32_t>();
    result.work.n_waits = in.number<int32_t>();
    const auto n = in.number<uint32_t>();
    check(n == 0 || n == n_segments, "the last step's report is of other segments");
    for (uint32_t s = 0; s < n; ++s) {
        segment_report report;
        report.n_computed = in.number<int32_t>();
        report.live = in.list<int32_t>();
        report.scores = in.list<float>();
        check_positions(report.live, n_tokens, "a token of the last step is not in the context");
        check(report.scores.empty() || report.scores.size() == static_cast<size_t>(n_tokens),
              "the scores are not one for each token");
        result.segments.push_back(std::move(report));
    }
    return result;
}

// ---- the mark ----

void write_mark(byte_writer & out, const saved_state & state) {
    const session_mark & mark = state.mark;
    out.number(mark.n_tokens);
    if (mark.n_tokens < 0) {
        return;
    }
    for (const positions & held : mark.held) {
        out.list(held);
    }
    for (size_t i = 0; i < mark.windows.size(); ++i) {
        write_window(out, mark.windows[i], &state.windows[i]);
    }
    write_memory(out, mark.memory);
    write_result(out, mark.result);
}

session_mark read_mark(byte_reader & in, const state_shape & shape, const saved_state & state,
                       const std::vector<positions> & held) {
    session_mark mark;
    mark.n_tokens = in.number<int32_t>();
    if (mark.n_tokens == -1) {
        return mark;
    }
    check(mark.n_tokens >= 0 && static_cast<size_t>(mark.n_tokens) <= state.tokens.size(),
          "the mark is not in the context");
    for (size_t s = 0; s < held.size(); ++s) {
        mark.held.push_back(in.list<int32_t>());
        check_positions(mark.held[s], mark.n_tokens, "the mark holds tokens that are not in the context");
        check(is_subset(mark.held[s], s == 0 ? held[s] : mark.held[s - 1]) && is_subset(mark.held[s], held[s]),
              "the mark holds tokens that have no rows");
    }
    for (size_t i = 0; i < shape.windows.size(); ++i) {
        mark.windows.push_back(read_window(in, shape.windows[i], mark.n_tokens, &state.windows[i]));
    }
    mark.memory = read_memory(in, mark.n_tokens, mark.held);
    mark.result = read_result(in, shape, mark.n_tokens, held.size());
    return mark;
}

} // namespace

std::vector<char> write_state(const state_shape & shape, const saved_state & state) {
    byte_writer out;
    out.list(shape.numbers);
    out.list(state.tokens);
    for (const cell_map & cells : state.cells) {
        out.list(cells.by_row());
    }
    for (const score_window & window : state.windows) {
        write_window(out, window, nullptr);
    }
    write_memory(out, state.memory);
    write_result(out, state.result);
    write_mark(out, state);
    return out.bytes();
}

saved_state read_state(const state_shape & shape, const std::vector<char> & bytes) {
    byte_reader in(bytes);
    if (in.list<int32_t>() != shape.numbers) {
        fail(status::invalid_argument, "the session was saved with another model, keep schedule, cache type or number "
                                       "of layers");
    }
    saved_state state;
    state.tokens = in.list<int32_t>();
    if (state.tokens.size() > static_cast<size_t>(shape.n_ctx)) {
        fail(status::context_full,
             format("the saved session holds %zu tokens, which do not fit into n_ctx %d; open the model with "
                    "n_ctx=%zu (--ctx-size %zu)",
                    state.tokens.size(), shape.n_ctx, state.tokens.size() + 512, state.tokens.size() + 512));
    }
    const auto n_tokens = static_cast<int32_t>(state.tokens.size());
    check(std::all_of(state.tokens.begin(), state.tokens.end(),
                      [&](int32_t id) { return id >= 0 && id < shape.n_vocab; }),
          "a token is not in the vocabulary");
    const size_t n_segments = shape.windows.size() + 1;
    for (size_t s = 0; s < n_segments; ++s) {
        state.cells.push_back(read_cells(in, n_tokens, shape.n_ctx));
    }
    const std::vector<positions> held = positions_held(state.cells);
    for (size_t s = 1; s < n_segments; ++s) {
        check(is_subset(held[s], held[s - 1]), "a token has rows in a segment but not in the one before");
    }
    for (const score_window & empty : shape.windows) {
        state.windows.push_back(read_window(in, empty, n_tokens, nullptr));
    }
    state.memory = read_memory(in, n_tokens, held);
    state.result = read_result(in, shape, n_tokens, n_segments);
    state.mark = read_mark(in, shape, state, held);
    check(in.n_left() == 0, "there are bytes behind its state");
    return state;
}

std::vector<std::vector<int32_t>> waiting_rows(const saved_state & state) {
    const std::vector<positions> held = positions_held(state.cells);
    std::vector<positions> out(held.size());
    for (size_t s = 1; s < held.size(); ++s) {
        positions revived; // since the mark, of the tokens that it holds
        if (state.mark.n_tokens >= 0) {
            revived = without(held[s], state.mark.held[s]);
            revived.erase(std::lower_bound(revived.begin(), revived.end(), state.mark.n_tokens), revived.end());
        }
        out[s] = without(held[s - 1], without(held[s], revived));
    }
    return out;
}

} // namespace lazygguf
