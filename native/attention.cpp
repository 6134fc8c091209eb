// attention.cpp: flash attention in tiles. A job is one K/V head and a few query rows; its queries are those rows of
// every head of the group, so that a tile of K and V is unpacked once for all of them.

#include "attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

namespace lazygguf {
namespace {

constexpr int LANES = 16;
constexpr int TILE = 64;       // cache rows unpacked at once
constexpr int MAX_QUERY = 128; // queries of a job, about
constexpr int MR = 6;          // rows of the register block of a product
using vec = float __attribute__((vector_size(LANES * sizeof(float)), aligned(4)));
using ivec = int32_t __attribute__((vector_size(LANES * sizeof(int32_t)), aligned(4)));

vec load(const float * p) { return *reinterpret_cast<const vec *>(p); }
void store(float * p, vec x) { *reinterpret_cast<vec *>(p) = x; }
vec splat(float x) { return x - vec{}; }
vec max(vec a, vec b) { return a > b ? a : b; }

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

// c [m, 16*NV] = (add ? c : 0) + a [m, n_in] * b [n_in, 16*NV]; lda, ldb, ldc in floats
template <int M, int NV>
void product_block(float * c, int ldc, const float * a, int lda, const float * b, int ldb, int n_in, bool add) {
    vec acc[M][NV];
    for (int i = 0; i < M; ++i) {
        for (int j = 0; j < NV; ++j) {
            acc[i][j] = add ? load(c + i * ldc + j * LANES) : vec{};
        }
    }
    for (int k = 0; k < n_in; ++k) {
        vec row[NV];
        for (int j = 0; j < NV; ++j) {
            row[j] = load(b + k * ldb + j * LANES);
        }
        for (int i = 0; i < M; ++i) {
            const vec x = splat(a[i * lda + k]);
            for (int j = 0; j < NV; ++j) {
                acc[i][j] += x * row[j];
            }
        }
    }
    for (int i = 0; i < M; ++i) {
        for (int j = 0; j < NV; ++j) {
            store(c + i * ldc + j * LANES, acc[i][j]);
        }
    }
}

template <int NV>
void product_columns(float * c, int ldc, const float * a, int lda, const float * b, int ldb, int m, int n_in,
                     bool add) {
    int i = 0;
    for (; i + MR <= m; i += MR) {
        product_block<MR, NV>(c + i * ldc, ldc, a + i * lda, lda, b, ldb, n_in, add);
    }
    for (; i < m; ++i) {
        product_block<1, NV>(c + i * ldc, ldc, a + i * lda, lda, b, ldb, n_in, add);
    }
}

// As above with n_out columns, a multiple of LANES.
void product(float * c, int ldc, const float * a, int lda, const float * b, int ldb, int m, int n_in, int n_out,
             bool add) {
    int j = 0;
    for (; j + 4 * LANES <= n_out; j += 4 * LANES) {
        product_columns<4>(c + j, ldc, a, lda, b + j, ldb, m, n_in, add);
    }
    for (; j < n_out; j += LANES) {
        product_columns<1>(c + j, ldc, a, lda, b + j, ldb, m, n_in, add);
    }
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
    float scale;

    explicit attention_op(ggml_tensor * t)
        : q(t->src[0]), k(t->src[1]), v(t->src[2]), mask(t->src[3]), dst(t), n_embd_head(static_cast<int>(q->ne[0])),
          group(static_cast<int>(q->ne[1] / k->ne[2])), n_rows(static_cast<int>(q->ne[2])),
          job_rows(std::max(1, MAX_QUERY / group)), n_kv(static_cast<int>(k->ne[1])),
          scale(1.0F / std::sqrt(static_cast<float>(n_embd_head))) {}
    int jobs_per_head() const { return (n_rows + job_rows - 1) / job_rows; }
    int n_jobs() const { return jobs_per_head() * static_cast<int>(k->ne[2]); }
};

// Memory of one thread, kept between its jobs.
struct workspace {
    std::vector<float> q, scores, out, k, v, row, top, sum, hidden;

    void reserve(const attention_op & op) {
        const auto m = static_cast<size_t>(op.job_rows * op.group);
        const auto d = static_cast<size_t>(op.n_embd_head);
        q.resize(m * d);
        scores.resize(m * TILE);
        out.resize(m * d);
        k.resize(d * TILE);
        v.resize(d * TILE);
        row.resize(d);
        top.resize(m);
        sum.resize(m);
        hidden.resize(static_cast<size_t>(op.job_rows) * TILE);
    }
};

const char * at(const ggml_tensor * t, int64_t i1, int64_t i2) {
    return static_cast<const char *>(t->data) + static_cast<size_t>(i1) * t->nb[1] + static_cast<size_t>(i2) * t->nb[2];
}

// 16 half floats as floats. ggml's own row function goes one by one.
vec load_half(const ggml_fp16_t * p) {
#if defined(__AVX512F__)
    return reinterpret_cast<vec>(
        _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))));
#elif defined(__F16C__)
    float x[LANES];
    for (int i = 0; i < LANES; i += 8) {
        _mm256_storeu_ps(x + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p + i))));
    }
    return load(x);
#else
    float x[LANES];
    ggml_fp16_to_fp32_row(p, x, LANES);
    return load(x);
#endif
}

// n a multiple of LANES
void to_f32(const ggml_tensor * t, const char * row, float * out, int n) {
    if (t->type == GGML_TYPE_F32) {
        std::memcpy(out, row, static_cast<size_t>(n) * sizeof(float));
        return;
    }
    for (int i = 0; i < n; i += LANES) {
        store(out + i, load_half(reinterpret_cast<const ggml_fp16_t *>(row) + i));
    }
}

// Cache rows [begin, begin + n) of a head: K by columns [n_embd_head, TILE], V by rows [TILE, n_embd_head].
void unpack_tile(const attention_op & op, workspace & w, int head, int begin, int n) {
    const int d = op.n_embd_head;
    for (int t = 0; t < n; ++t) {
        to_f32(op.k, at(op.k, begin + t, head), w.row.data(), d);
        for (int i = 0; i < d; ++i) {
            w.k[static_cast<size_t>(i * TILE + t)] = w.row[static_cast<size_t>(i)];
        }
        to_f32(op.v, at(op.v, begin + t, head), w.v.data() + t * d, d);
    }
}

enum class visibility { none, some, all };

// What the job's rows may see of a tile: 0 or -inf into w.hidden [rows, TILE].
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

// Scores of one query in the tile become weights; its sum and its output so far follow a new maximum.
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

void run_job(const attention_op & op, workspace & w, int head, int first_row) {
    const int d = op.n_embd_head;
    const int rows = std::min(op.job_rows, op.n_rows - first_row);
    for (int i = 0; i < rows * op.group; ++i) {
        const auto * q =
            reinterpret_cast<const float *>(at(op.q, head * op.group + i % op.group, first_row + i / op.group));
        std::transform(q, q + d, w.q.data() + i * d, [&](float x) { return x * op.scale; });
    }
    std::fill(w.out.begin(), w.out.end(), 0.0F);
    std::fill(w.sum.begin(), w.sum.end(), 0.0F);
    std::fill(w.top.begin(), w.top.end(), -std::numeric_limits<float>::infinity());
    for (int begin = 0; begin < op.n_kv; begin += TILE) {
        const int n = std::min(TILE, op.n_kv - begin);
        const visibility seen = read_mask(op, w, first_row, rows, begin, n);
        if (seen != visibility::none) {
            unpack_tile(op, w, head, begin, n);
            attend_tile(op, w, rows, seen);
        }
    }
    for (int i = 0; i < rows * op.group; ++i) {
        char * out = const_cast<char *>(at(op.dst, head * op.group + i % op.group, first_row + i / op.group));
        const float inverse = 1.0F / w.sum[static_cast<size_t>(i)];
        std::transform(w.out.data() + i * d, w.out.data() + (i + 1) * d, reinterpret_cast<float *>(out),
                       [&](float x) { return x * inverse; });
    }
}

void attend(ggml_tensor * dst, int ith, int nth, void * /*unused*/) {
    const attention_op op(dst);
    thread_local workspace w;
    w.reserve(op);
    for (int job = ith; job < op.n_jobs(); job += nth) { // interleaved: later rows see more
        run_job(op, w, job % static_cast<int>(op.k->ne[2]), job / static_cast<int>(op.k->ne[2]) * op.job_rows);
    }
}

bool is_float(const ggml_tensor * t) { return t->type == GGML_TYPE_F16 || t->type == GGML_TYPE_F32; }

} // namespace

bool has_attention_rows(const ggml_tensor * q, const ggml_tensor * k, const ggml_tensor * v) {
    return q->ne[0] % LANES == 0 && is_float(k) && is_float(v);
}

ggml_tensor * build_attention_rows(ggml_context * ctx, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v,
                                   ggml_tensor * mask) {
    ggml_tensor * args[] = {q, k, v, mask};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, q->ne[0], q->ne[1], q->ne[2], 1, args, 4, attend, GGML_N_TASKS_MAX,
                          nullptr);
}

} // namespace lazygguf
