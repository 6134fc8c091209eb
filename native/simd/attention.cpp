// attention.cpp: flash attention in tiles. A job is one K/V head and a few query rows; its queries are those rows of
// every head of the group, so that a tile of K and V is unpacked once for all of them. Where there are few jobs, as in
// decode, each is cut into parts of the cache rows, and a second op merges what they found.

#include "simd/kernel_set.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "simd/kv_tile.h"

namespace lazygguf::LAZY_ISA {

using namespace kv_tile;

namespace {

constexpr int MAX_QUERY = 128;     // queries of a job, about
constexpr int64_t PART_ROWS = 256; // cache rows of a part, at least
constexpr int64_t MAX_PARTS = 48;  // parts over all rows and K/V heads, about
using ivec = int32_t __attribute__((vector_size(LANES * sizeof(int32_t)), aligned(4)));

// e^x for x <= 0: 2^n times a polynomial for the fraction; relative error below 2e-7. Below -87: 0.
vec exp_negative(vec x) {
    const vec clamped = max(x, splat(-87.0F));
    const vec magic = splat(12582912.0F); // 1.5 * 2^23: adding it rounds to an integer
    const vec n = (clamped * 1.44269504F + magic) - magic;
    const vec r = (clamped - n * 0.693145752F) - n * 1.42860677e-6F;
    vec p = splat(1.38888889e-3F);
    p = p * r + 8.33333333e-3F;
    p = p * r + 4.16666667e-2F;
    p = p * r + 1.66666667e-1F;
    p = p * r + 0.5F;
    p = p * r + 1.0F;
    p = p * r + 1.0F;
    const ivec power = (__builtin_convertvector(n, ivec) + 127) << 23;
    vec scale;
    std::memcpy(&scale, &power, sizeof scale);
    return x < splat(-87.0F) ? vec{} : p * scale;
}

// The tensors of one op and what is derived from their shapes.
struct attention_op {
    const ggml_tensor * q;
    const ggml_tensor * k;
    const ggml_tensor * v;
    const ggml_tensor * mask;
    ggml_tensor * dst;
    int n_embd_head;
    int group;    // query heads of a K/V head
    int n_rows;   // query rows
    int job_rows; // query rows of a job
    int n_kv;
    int n_parts;   // of the cache rows, each a job of its own
    int part_rows; // cache rows of a part
    float scale;

    explicit attention_op(ggml_tensor * t)
        : q(t->src[0]), k(t->src[1]), v(t->src[2]), mask(t->src[3]), dst(t), n_embd_head(static_cast<int>(q->ne[0])),
          group(static_cast<int>(q->ne[1] / k->ne[2])), n_rows(static_cast<int>(q->ne[2])),
          job_rows(std::max(1, MAX_QUERY / group)), n_kv(static_cast<int>(k->ne[1])),
          n_parts(static_cast<int>(t->ne[3])), part_rows((n_kv + n_parts * TILE - 1) / (n_parts * TILE) * TILE),
          scale(1.0F / std::sqrt(static_cast<float>(n_embd_head))) {}
    int jobs_per_head() const { return (n_rows + job_rows - 1) / job_rows; }
    int n_jobs() const { return jobs_per_head() * static_cast<int>(k->ne[2]) * n_parts; }
};

// Memory of one thread, kept between its jobs.
struct workspace {
    aligned_floats q, scores, out, k, v, hidden;
    std::vector<float> top, sum;

    void reserve(const attention_op & op) {
        const auto m = static_cast<size_t>(op.job_rows * op.group);
        const auto d = static_cast<size_t>(op.n_embd_head);
        q.resize(m * d);
        scores.resize(m * TILE);
        out.resize(m * d);
        k.resize(d * TILE);
        v.resize(d * TILE);
        top.resize(m);
        sum.resize(m);
        hidden.resize(static_cast<size_t>(op.job_rows) * TILE);
    }
};

enum class visibility { none, some, all };

// Reads the mask of a tile into w.hidden (0 or -inf, [rows, TILE]); tells whether none, some or all is visible.
visibility read_mask(const attention_op & op, workspace & w, int first_row, int rows, int begin, int n) {
    int n_visible = 0;
    for (int r = 0; r < rows; ++r) {
        const auto * mask = reinterpret_cast<const uint16_t *>(at(op.mask, first_row + r, 0)) + begin;
        float * hidden = w.hidden.data() + r * TILE;
        for (int t = 0; t < n; ++t) {
            hidden[t] = mask[t] == 0 ? 0.0F : -std::numeric_limits<float>::infinity();
            n_visible += mask[t] == 0 ? 1 : 0;
        }
        std::fill(hidden + n, hidden + TILE, -std::numeric_limits<float>::infinity());
    }
    return n_visible == 0 ? visibility::none : n_visible == rows * TILE ? visibility::all : visibility::some;
}

// Softmax step for one query: scores become weights; if the maximum grows, the sum and output so far are rescaled.
void soften(float * scores, float & top, float & sum, float * out, int n_embd_head) {
    vec most = load(scores);
    for (int j = LANES; j < TILE; j += LANES) {
        most = max(most, load(scores + j));
    }
    float tile_top = most[0];
    for (int i = 1; i < LANES; ++i) {
        tile_top = std::max(tile_top, most[i]);
    }
    if (tile_top > top) {
        const float shrink = std::isinf(top) ? 0.0F : std::exp(top - tile_top);
        sum *= shrink;
        for (int j = 0; j < n_embd_head; j += LANES) {
            store(out + j, load(out + j) * shrink);
        }
        top = tile_top;
    }
    vec total = {};
    for (int j = 0; j < TILE; j += LANES) {
        // nothing seen yet: every score is -inf, and so is top
        const vec weight = std::isinf(top) ? vec{} : exp_negative(load(scores + j) - top);
        store(scores + j, weight);
        total += weight;
    }
    for (int i = 0; i < LANES; ++i) {
        sum += total[i];
    }
}

void attend_tile(const attention_op & op, workspace & w, int rows, visibility seen) {
    const int d = op.n_embd_head;
    const int m = rows * op.group;
    product(w.scores.data(), TILE, w.q.data(), d, w.k.data(), TILE, m, d, TILE, false);
    for (int i = 0; i < m; ++i) { // query i: head i % group of row i / group
        float * scores = w.scores.data() + i * TILE;
        if (seen == visibility::some) {
            const float * hidden = w.hidden.data() + i / op.group * TILE;
            for (int j = 0; j < TILE; j += LANES) {
                store(scores + j, load(scores + j) + load(hidden + j));
            }
        }
        const auto u = static_cast<size_t>(i);
        soften(scores, w.top[u], w.sum[u], w.out.data() + i * d, d);
    }
    product(w.out.data(), d, w.scores.data(), TILE, w.v.data(), d, m, TILE, d, true);
}

struct attention_job {
    int head;      // K/V head
    int first_row; // of the query rows
    int rows;
    int part;
};

// Job i: interleaved over rows, since later ones see more.
attention_job job_at(const attention_op & op, int i) {
    const int n_head_kv = static_cast<int>(op.k->ne[2]);
    const int first_row = i / (n_head_kv * op.n_parts) * op.job_rows;
    return {i % n_head_kv, first_row, std::min(op.job_rows, op.n_rows - first_row), i / n_head_kv % op.n_parts};
}

void read_queries(const attention_op & op, workspace & w, const attention_job & job) {
    const int d = op.n_embd_head;
    for (int i = 0; i < job.rows * op.group; ++i) {
        const auto * q =
            reinterpret_cast<const float *>(at(op.q, job.head * op.group + i % op.group, job.first_row + i / op.group));
        std::transform(q, q + d, w.q.data() + i * d, [&](float x) { return x * op.scale; });
    }
    w.out.fill(0.0F);
    std::fill(w.sum.begin(), w.sum.end(), 0.0F);
    std::fill(w.top.begin(), w.top.end(), -std::numeric_limits<float>::infinity());
}

// A whole result, or where the cache rows are parts: the sum so far, then its largest score and its weights' sum.
void write_outputs(const attention_op & op, const workspace & w, const attention_job & job) {
    const int d = op.n_embd_head;
    for (int i = 0; i < job.rows * op.group; ++i) {
        const auto u = static_cast<size_t>(i);
        char * row = const_cast<char *>(at(op.dst, job.head * op.group + i % op.group, job.first_row + i / op.group));
        auto * out = reinterpret_cast<float *>(row + static_cast<size_t>(job.part) * op.dst->nb[3]);
        const float factor = op.n_parts == 1 ? 1.0F / w.sum[u] : 1.0F;
        std::transform(w.out.data() + i * d, w.out.data() + (i + 1) * d, out, [&](float x) { return x * factor; });
        if (op.n_parts > 1) {
            out[d] = w.top[u];
            out[d + 1] = w.sum[u];
        }
    }
}

void run_job(const attention_op & op, workspace & w, const attention_job & job) {
    read_queries(op, w, job);
    const int end = std::min(op.n_kv, (job.part + 1) * op.part_rows);
    for (int begin = job.part * op.part_rows; begin < end; begin += TILE) {
        const int n = std::min(TILE, end - begin);
        const visibility seen = read_mask(op, w, job.first_row, job.rows, begin, n);
        if (seen != visibility::none) {
            unpack_columns(op.k, job.head, begin, n, w.k.data());
            unpack_rows(op.v, job.head, begin, n, w.v.data());
            attend_tile(op, w, job.rows, seen);
        }
    }
    write_outputs(op, w, job);
}

void attend(ggml_tensor * dst, int ith, int nth, void * /*unused*/) {
    const attention_op op(dst);
    thread_local workspace w;
    w.reserve(op);
    for (int i = ith; i < op.n_jobs(); i += nth) {
        run_job(op, w, job_at(op, i));
    }
}

// parts [n_embd_head + 2, n_head, n_rows, n_parts] -> [n_embd_head, n_head, n_rows]
void merge_parts(ggml_tensor * dst, int ith, int nth, void * /*unused*/) {
    const ggml_tensor * parts = dst->src[0];
    const auto d = static_cast<size_t>(dst->ne[0]);
    for (int64_t i = ith; i < dst->ne[1] * dst->ne[2]; i += nth) {
        const char * first = at(parts, i % dst->ne[1], i / dst->ne[1]);
        const auto part = [&](int64_t p) {
            return reinterpret_cast<const float *>(first + static_cast<size_t>(p) * parts->nb[3]);
        };
        float top = part(0)[d];
        for (int64_t p = 1; p < parts->ne[3]; ++p) {
            top = std::max(top, part(p)[d]);
        }
        std::vector<float> out(d, 0.0F);
        float sum = 0.0F;
        for (int64_t p = 0; p < parts->ne[3]; ++p) {
            const float weight = std::exp(part(p)[d] - top); // 0 where a part saw nothing
            sum += weight * part(p)[d + 1];
            std::transform(out.begin(), out.end(), part(p), out.begin(),
                           [&](float a, float b) { return a + weight * b; });
        }
        char * row = const_cast<char *>(at(dst, i % dst->ne[1], i / dst->ne[1]));
        std::transform(out.begin(), out.end(), reinterpret_cast<float *>(row), [&](float x) { return x / sum; });
    }
}

} // namespace

attention_kernels attention() { return {LANES, attend, merge_parts, key_products}; }

} // namespace lazygguf::LAZY_ISA
