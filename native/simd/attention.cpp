// attention.cpp: flash attention in tiles. A job is one K/V head and a few query rows; its queries are those rows of
// every head of the group, so that a tile of K and V is unpacked once for all of them. Where there are few rows, as in
// decode, each chunk of the entries is a job of its own, and a second op merges what they found.
//
// A row's output has the same bits whatever else is computed with it: entries are taken in tiles that begin at
// multiples of TILE, each chunk is summed from scratch, and chunks are merged from the first to the last, by one
// function, whoever summed them.

#include "simd/kernel_set.h"

#include <cmath>
#include <cstring>

#include "simd/kv_tile.h"
#include "simd/visible.h"

namespace lazygguf::LAZY_ISA {

using namespace float_lanes;

namespace {

// Queries of a job, about. The more, the less often a tile is unpacked; but what belongs to them should stay in the
// cache of the second level.
constexpr int MAX_QUERY_VALUES = 16 * 1024;
constexpr int MAX_QUERIES = 256;
constexpr int MIN_QUERIES = 2 * BLOCK_ROWS;
constexpr int JOBS_OF_THREAD = 4;
static_assert(ATTENTION_CHUNK % TILE == 0, "whole tiles");

// What a query found in some entries: its output so far, [n_values] in whole vectors, which is the sum of V rows by
// weight; then the largest score and the weights' sum, which is 0 where it has seen nothing. Scores are in powers of 2.
class found {
  public:
    explicit found(float * at, int n_values) : at_(at), n_(vecs_of(n_values) * LANES) {}
    float * out() const { return at_; }
    float & top() const { return at_[n_]; }
    float & sum() const { return at_[n_ + 1]; }
    int n() const { return n_; }
    void clear() const {
        std::memset(at_, 0, static_cast<size_t>(n_ + 2) * sizeof(float));
        top() = -HUGE_VALF;
    }

  private:
    float * at_;
    int n_;
};

int found_size(int n_values) { return (vecs_of(n_values) + 1) * LANES; }

float exp2_of_one(float x) {
    float lanes[LANES];
    store(lanes, exp2_of(splat(x)));
    return lanes[0];
}

// The only place where chunks come together: a second copy of these sums could be compiled to other roundings.
[[gnu::noinline]] void merge(const found & into, const found & next) {
    if (into.sum() == 0.0F) {
        std::memcpy(into.out(), next.out(), static_cast<size_t>(into.n() + 2) * sizeof(float));
        return;
    }
    const float top = larger(into.top(), next.top());
    const float old_weight = exp2_of_one(into.top() - top);
    const float new_weight = exp2_of_one(next.top() - top);
    for (int i = 0; i < into.n(); i += LANES) {
        const vec old = mul(load(into.out() + i), splat(old_weight));
        store(into.out() + i, mul_add(load(next.out() + i), splat(new_weight), old));
    }
    into.sum() = into.sum() * old_weight + next.sum() * new_weight;
    into.top() = top;
}

[[gnu::noinline]] void finish(const found & from, float * to, int n_values) {
    const float factor = 1.0F / from.sum();
    for (int i = 0; i < n_values; ++i) {
        to[i] = from.out()[i] * factor + 0.0F; // -0 becomes 0: which zero it is may depend on entries that are hidden
    }
}

// The tensors of one op and what is derived from their shapes.
struct attention_op {
    const ggml_tensor * q;
    const ggml_tensor * k;
    const ggml_tensor * v;
    const int32_t * order;
    const ggml_tensor * visible;
    ggml_tensor * dst;
    int n_values; // of a head
    int group;    // query heads of a K/V head
    int n_rows;   // query rows
    int n_heads;  // K/V heads
    int n_chunks; // each a job of its own; 1: a job takes all
    int job_rows; // query rows of a job
    int n_jobs;
    float softcap;

    attention_op(ggml_tensor * t, int n_threads, const attention_settings & settings)
        : q(t->src[0]), k(t->src[1]), v(t->src[2]), order(static_cast<const int32_t *>(t->src[3]->data)),
          visible(t->src[4]), dst(t), n_values(static_cast<int>(q->ne[0])),
          group(static_cast<int>(q->ne[1] / k->ne[2])), n_rows(static_cast<int>(q->ne[2])),
          n_heads(static_cast<int>(k->ne[2])), n_chunks(static_cast<int>(t->ne[3])), softcap(settings.softcap) {
        const int wanted = n_rows * n_heads * n_chunks / (JOBS_OF_THREAD * n_threads);
        const int most = larger(smaller(MAX_QUERY_VALUES / n_values, MAX_QUERIES), 8 * MIN_QUERIES);
        job_rows = smaller(larger(wanted, larger(MIN_QUERIES / group, 1)), larger(most / group, 1));
        n_jobs = (n_rows + job_rows - 1) / job_rows * n_heads * n_chunks;
    }
    bool is_split() const { return n_chunks > 1; }
    // Query i of a job: head i % group of row i / group.
    char * at_query(const ggml_tensor * t, int head, int first_row, int i) const {
        return at(t, head * group + i % group, first_row + i / group);
    }
};

struct attention_job {
    int head; // K/V head
    int first_row;
    int rows;
    int chunk;
};

// The last rows first: they see the most, and what begins last should be short.
attention_job job_at(const attention_op & op, int i) {
    const int n_blocks = op.n_jobs / (op.n_heads * op.n_chunks);
    const int first_row = (n_blocks - 1 - i / (op.n_heads * op.n_chunks)) * op.job_rows;
    return {i % op.n_heads, first_row, smaller(op.job_rows, op.n_rows - first_row), i / op.n_heads % op.n_chunks};
}

// Memory of one thread, kept between its jobs.
struct workspace {
    scratch<float> q_buffer, k_buffer, v_buffer, chunk_buffer, all_buffer, row_buffer;
    float * q;     // [queries, n_values]
    float * k;     // a tile, see kv_tile.h
    float * v;     // a tile
    float * chunk; // found in one chunk, by query
    float * all;   // found in all before, by query
    float scores[BLOCK_ROWS * TILE];
    float hidden[TILE]; // 0 or -inf: added to the scores of a row
    float shown[TILE];  // 1 or 0: times its weights

    void reserve(const attention_op & op) {
        const auto m = static_cast<size_t>(op.job_rows * op.group);
        const auto size = static_cast<size_t>(found_size(op.n_values));
        q = q_buffer.reserve(m * static_cast<size_t>(op.n_values));
        k = k_buffer.reserve(static_cast<size_t>(tile_size(column_rows(op.n_values), TILE)));
        v = v_buffer.reserve(static_cast<size_t>(tile_size(TILE, op.n_values)));
        chunk = chunk_buffer.reserve(m * size);
        all = all_buffer.reserve(m * size);
    }
};

void read_queries(const attention_op & op, const workspace & w, const attention_job & job) {
    const float scale = 1.0F / std::sqrt(static_cast<float>(op.n_values)) * (op.softcap == 0.0F ? LOG2_E : 1.0F);
    for (int i = 0; i < job.rows * op.group; ++i) {
        const auto * q = reinterpret_cast<const float *>(op.at_query(op.q, job.head, job.first_row, i));
        float * to = w.q + i * op.n_values;
        for (int j = 0; j < op.n_values; ++j) {
            to[j] = q[j] * scale;
        }
    }
}

// What a row sees of a tile, in columns of it.
void set_masks(workspace & w, entry_span seen) {
    for (int i = 0; i < TILE; ++i) {
        const bool is_shown = i >= seen.begin && i < seen.end;
        w.hidden[i] = is_shown ? 0.0F : -HUGE_VALF;
        w.shown[i] = is_shown ? 1.0F : 0.0F;
    }
}

// First half of a softmax step for one query: if the largest of n scores is above all before, the sum and the output so
// far are rescaled.
template <bool MASKS> void raise_top(float * scores, int n, const float * hidden, const found & f) {
    vec most = splat(-HUGE_VALF);
    for (int j = 0; j < n; j += LANES) {
        vec x = load(scores + j);
        if constexpr (MASKS) {
            x = add(x, load(hidden + j));
            store(scores + j, x);
        }
        most = max(most, x);
    }
    const float tile_top = max_of(most);
    if (tile_top > f.top()) {
        if (f.sum() != 0.0F) {
            const float shrink = exp2_of_one(f.top() - tile_top);
            f.sum() *= shrink;
            for (int j = 0; j < f.n(); j += LANES) {
                store(f.out() + j, mul(load(f.out() + j), splat(shrink)));
            }
        }
        f.top() = tile_top;
    }
}

// Second half: the scores become weights.
template <bool MASKS> void soften(float * scores, int n, const float * shown, const found & f) {
    const vec top = splat(f.top());
    vec total = zeros();
    for (int j = 0; j < n; j += LANES) {
        vec weight = exp2_of(sub(load(scores + j), top));
        if constexpr (MASKS) {
            weight = mul(weight, load(shown + j));
        }
        store(scores + j, weight);
        total = add(total, weight);
    }
    f.sum() += sum_of(total);
}

// Queries [first, first + m) of the job and the tile that begins at an entry.
void attend_block(const attention_op & op, workspace & w, const attention_job & job, int first, int m, int tile) {
    const auto seen_by = [&](int i) { // in columns of the tile
        const entry_span s = visible_to(op.visible, job.first_row + i / op.group);
        return entry_span{larger(s.begin - tile, 0), smaller(s.end - tile, TILE)};
    };
    const entry_span all = {seen_by(first).begin, seen_by(first + m - 1).end};
    const int begin = all.begin / PANEL * PANEL; // of the columns computed
    const int n_vecs = vecs_of(all.end - begin);
    const int n = n_vecs * LANES;
    const int k_stride = panel_stride(column_rows(op.n_values));
    float * scores = w.scores + begin;
    product({scores, TILE, w.q + first * op.n_values, op.n_values, w.k + begin / PANEL * k_stride, k_stride,
             op.n_values, /*adds=*/false},
            m, n_vecs);
    const int size = found_size(op.n_values);
    for (int i = 0; i < m && op.softcap != 0.0F; ++i) {
        for (int j = 0; j < n; j += LANES) {
            float * x = scores + i * TILE + j;
            store(x, mul(soft_capped(load(x), op.softcap), splat(LOG2_E)));
        }
    }
    const auto found_by = [&](int i) { return found(w.chunk + (first + i) * size, op.n_values); };
    if (seen_by(first + m - 1).begin == begin && seen_by(first).end == begin + n) { // all see all
        for (int i = 0; i < m; ++i) {
            raise_top<false>(scores + i * TILE, n, nullptr, found_by(i));
        }
        for (int i = 0; i < m; ++i) {
            soften<false>(scores + i * TILE, n, nullptr, found_by(i));
        }
    } else {
        for (int i = 0; i < m; ++i) {
            set_masks(w, seen_by(first + i));
            raise_top<true>(scores + i * TILE, n, w.hidden + begin, found_by(i));
            soften<true>(scores + i * TILE, n, w.shown + begin, found_by(i));
        }
    }
    product({w.chunk + first * size, size, w.scores + all.begin, TILE, w.v + all.begin * PANEL, panel_stride(TILE),
             all.end - all.begin, /*adds=*/true},
            m, vecs_of(op.n_values));
}

void attend_tile(const attention_op & op, workspace & w, const attention_job & job, int tile) {
    const entry_span rows = rows_that_see(op.visible, job.first_row, job.first_row + job.rows, tile, tile + TILE);
    if (rows.begin == rows.end) {
        return;
    }
    const int n = smaller(visible_to(op.visible, rows.end - 1).end - tile, TILE);
    unpack_columns({op.k, op.order + tile, n, job.head}, w.row_buffer, w.k);
    unpack_rows({op.v, op.order + tile, n, job.head}, w.row_buffer, w.v);
    const int first = (rows.begin - job.first_row) * op.group;
    const int m = (rows.end - rows.begin) * op.group;
    for (int begin = 0, size = 0; begin < m; begin += size) {
        const int rest = m - begin;
        size = smaller(rest, BLOCK_ROWS);
        if (rest > BLOCK_ROWS && rest < 2 * BLOCK_ROWS) {
            size = (rest + 1) / 2; // two of nearly the same size: small ones are slow
        }
        attend_block(op, w, job, first + begin, size, tile);
    }
}

// The queries of a job that see some entry of the chunk, with what they find there in w.chunk.
entry_span attend_chunk(const attention_op & op, workspace & w, const attention_job & job, int begin) {
    const int end = begin + ATTENTION_CHUNK;
    const entry_span rows = rows_that_see(op.visible, job.first_row, job.first_row + job.rows, begin, end);
    const entry_span queries = {(rows.begin - job.first_row) * op.group, (rows.end - job.first_row) * op.group};
    for (int i = queries.begin; i < queries.end; ++i) {
        found(w.chunk + i * found_size(op.n_values), op.n_values).clear();
    }
    for (int tile = begin; rows.begin < rows.end && tile < end; tile += TILE) {
        attend_tile(op, w, job, tile);
    }
    return queries;
}

// One chunk: what is found goes to the op that merges.
void run_chunk(const attention_op & op, workspace & w, const attention_job & job) {
    const int size = found_size(op.n_values);
    const entry_span queries = attend_chunk(op, w, job, job.chunk * ATTENTION_CHUNK);
    for (int i = queries.begin; i < queries.end; ++i) {
        char * to = op.at_query(op.dst, job.head, job.first_row, i) + static_cast<size_t>(job.chunk) * op.dst->nb[3];
        std::memcpy(to, w.chunk + i * size, static_cast<size_t>(size) * sizeof(float));
    }
}

void run_all(const attention_op & op, workspace & w, const attention_job & job) {
    const int size = found_size(op.n_values);
    const auto all = [&](int i) { return found(w.all + i * size, op.n_values); };
    for (int i = 0; i < job.rows * op.group; ++i) {
        all(i).clear();
    }
    const int begin = visible_to(op.visible, job.first_row).begin / ATTENTION_CHUNK * ATTENTION_CHUNK;
    const int end = visible_to(op.visible, job.first_row + job.rows - 1).end;
    for (int chunk = begin; chunk < end; chunk += ATTENTION_CHUNK) {
        const entry_span queries = attend_chunk(op, w, job, chunk);
        for (int i = queries.begin; i < queries.end; ++i) {
            merge(all(i), found(w.chunk + i * size, op.n_values));
        }
    }
    for (int i = 0; i < job.rows * op.group; ++i) {
        finish(all(i), reinterpret_cast<float *>(op.at_query(op.dst, job.head, job.first_row, i)), op.n_values);
    }
}

void attend(ggml_tensor * dst, int /*ith*/, int nth, void * userdata) {
    auto & settings = *static_cast<attention_settings *>(userdata);
    const attention_op op(dst, nth, settings);
    thread_local workspace w;
    w.reserve(op);
    for (int i = settings.queue.take(); i < op.n_jobs; i = settings.queue.take()) {
        const attention_job job = job_at(op, i);
        read_queries(op, w, job);
        op.is_split() ? run_chunk(op, w, job) : run_all(op, w, job);
    }
    settings.queue.leave(nth);
}

// chunks [attention_found_size, n_head, n_rows, n_chunks], visible -> [n_embd_head, n_head, n_rows]
void merge_chunks(ggml_tensor * dst, int ith, int nth, void * /*unused*/) {
    const ggml_tensor * chunks = dst->src[0];
    const int n_values = static_cast<int>(dst->ne[0]);
    thread_local scratch<float> buffer;
    const found all(buffer.reserve(static_cast<size_t>(found_size(n_values))), n_values);
    for (int64_t i = ith; i < dst->ne[1] * dst->ne[2]; i += nth) {
        const int64_t head = i % dst->ne[1];
        const int64_t row = i / dst->ne[1];
        const entry_span seen = visible_to(dst->src[1], static_cast<int>(row));
        all.clear();
        for (int c = seen.begin / ATTENTION_CHUNK; c * ATTENTION_CHUNK < seen.end; ++c) {
            char * at_chunk = at(chunks, head, row) + static_cast<size_t>(c) * chunks->nb[3];
            merge(all, found(reinterpret_cast<float *>(at_chunk), n_values));
        }
        finish(all, reinterpret_cast<float *>(at(dst, head, row)), n_values);
    }
}

int64_t attention_found_size(int64_t n_embd_head) { return found_size(static_cast<int>(n_embd_head)); }

} // namespace

attention_kernels attention() {
    return {attend, merge_chunks, attention_found_size, key_products, soften_scores, sum_heads};
}

} // namespace lazygguf::LAZY_ISA
