// attention.cpp: the attention kernels of one instruction set against plain sums in double precision, and against
// themselves: a row alone, in company, cut otherwise, from other cache rows and by several threads has the same bits.
//
// Compiled with native/simd for any instruction set, LAZY_ISA being its name, and without ggml.

#include <cmath>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "../check.h"
#include "simd/kernel_set.h"
#include "tensors.h"

using namespace lazygguf;

namespace {

const attention_kernels KERNELS = lazygguf::LAZY_ISA::attention();

struct shape {
    int n_embd_head;
    int group;
    int n_head_kv;
    int n_live; // positions that have K and V, every third one missing
    ggml_type type = GGML_TYPE_F16;
    int n_window = 0;
    float softcap = 0.0F;
};

// Queries at the last positions, and a cache. `shift` moves every cache row, `n_kv` is padded more for some.
class problem {
  public:
    problem(const shape & s, int shift, int padding)
        : s_(s), n_kv_((s.n_live + 255) / 256 * 256 + padding), k_(s.type, s.n_embd_head, s.n_head_kv, n_kv_),
          v_(s.type, s.n_embd_head, s.n_head_kv, n_kv_) {
        std::swap(k_.ne[1], k_.ne[2]); // as the graph sees the cache: [n_embd_head, n_kv, n_head_kv]
        std::swap(k_.nb[1], k_.nb[2]);
        std::swap(v_.ne[1], v_.ne[2]);
        std::swap(v_.nb[1], v_.nb[2]);
        for (int i = 0; i < s.n_live; ++i) {
            pos_.push_back(i * 3 / 2);
            // neighbours are apart where rows are shifted
            row_.push_back(shift == 0 ? i : (i * 7 + shift) % n_kv_);
        }
        if (shift != 0 && n_kv_ % 7 == 0) {
            report_failure(__FILE__, __LINE__, "two entries in one row");
        }
        for (int i = 0; i < s.n_live; ++i) {
            for (int h = 0; h < s.n_head_kv; ++h) {
                fill(k_, i, h, 1);
                fill(v_, i, h, 2);
            }
        }
    }

    int n_kv() const { return n_kv_; }
    int n_head() const { return s_.group * s_.n_head_kv; }

    // q F32 [n_embd_head, n_head, n], of the entries from `first` on
    void set_queries(tensor & q, int first) const {
        for (int64_t row = 0; row < q.ne[2]; ++row) {
            for (int h = 0; h < n_head(); ++h) {
                for (int i = 0; i < s_.n_embd_head; ++i) {
                    q.floats(h, row)[i] = 3.0F * number(first + static_cast<int>(row), h, i, 3);
                }
            }
        }
    }
    void set_order(tensor & order, tensor & visible, int first) const {
        auto * rows = reinterpret_cast<int32_t *>(order.at(0, 0));
        for (int i = 0; i < n_kv_; ++i) {
            rows[i] = i < s_.n_live ? row_[static_cast<size_t>(i)] : 0;
        }
        for (int row = 0; row < visible.ne[1]; ++row) {
            auto * span = reinterpret_cast<int32_t *>(visible.at(row, 0));
            span[0] = begin_of(first + row);
            span[1] = first + row + 1;
        }
    }
    int begin_of(int entry) const {
        int begin = 0;
        while (s_.n_window > 0 && pos_[static_cast<size_t>(begin)] <= pos_[static_cast<size_t>(entry)] - s_.n_window) {
            ++begin;
        }
        return begin;
    }

    // Output of `n` rows from entry `first` on, by row and head.
    std::vector<float> attend(int first, int n, bool split, int n_threads = 1) {
        tensor q(GGML_TYPE_F32, s_.n_embd_head, n_head(), n);
        tensor order(GGML_TYPE_F32, n_kv_, 1, 1);
        tensor visible(GGML_TYPE_F32, 2, n, 1);
        tensor out(GGML_TYPE_F32, s_.n_embd_head, n_head(), n);
        set_queries(q, first);
        set_order(order, visible, first);
        attention_settings settings;
        settings.softcap = s_.softcap;
        if (split && n_kv_ > ATTENTION_CHUNK) { // of one chunk nothing is merged
            tensor chunks(GGML_TYPE_F32, KERNELS.found_size(s_.n_embd_head), n_head(), n,
                          (n_kv_ + ATTENTION_CHUNK - 1) / ATTENTION_CHUNK);
            run(KERNELS.attend, chunks, {&q, &k_, &v_, &order, &visible}, n_threads, &settings);
            run(KERNELS.merge_chunks, out, {&chunks, &visible}, n_threads, nullptr);
        } else {
            run(KERNELS.attend, out, {&q, &k_, &v_, &order, &visible}, n_threads, &settings);
        }
        return std::vector<float>(out.floats(0, 0), out.floats(0, n));
    }

    // Makes one value of an entry NaN.
    void spoil(bool in_k, int entry) { reinterpret_cast<ggml_fp16_t *>(place(in_k ? k_ : v_, entry, 0))[0] = 0x7e00; }

    // The softmax of `n` rows from entry `first` on, by head, row and entry.
    std::vector<float> scores(int first, int n, int n_threads = 1) {
        tensor q(GGML_TYPE_F32, s_.n_embd_head, n_head(), n);
        tensor order(GGML_TYPE_F32, n_kv_, 1, 1);
        tensor visible(GGML_TYPE_F32, 2, n, 1);
        tensor products(GGML_TYPE_F32, n_kv_, n, n_head());
        tensor out(GGML_TYPE_F32, n_kv_, n, n_head());
        set_queries(q, first);
        set_order(order, visible, first);
        attention_settings settings;
        settings.softcap = s_.softcap;
        run(KERNELS.key_products, products, {&q, &k_, &order, &visible}, n_threads, &settings);
        run(KERNELS.soften_scores, out, {&products, &visible}, n_threads, nullptr);
        return std::vector<float>(out.floats(0, 0), out.floats(0, n_head()));
    }

    // In double precision, by plain sums: of one row and head the softmax by entry, then the output.
    std::vector<double> expected_scores(int entry, int head) {
        std::vector<double> p(static_cast<size_t>(n_kv_), 0.0);
        double top = -HUGE_VAL;
        for (int i = begin_of(entry); i <= entry; ++i) {
            const std::vector<float> k = values(k_, i, head / s_.group);
            double sum = 0.0;
            for (int j = 0; j < s_.n_embd_head; ++j) {
                sum += 3.0 * static_cast<double>(number(entry, head, j, 3)) *
                       static_cast<double>(k[static_cast<size_t>(j)]);
            }
            sum /= std::sqrt(static_cast<double>(s_.n_embd_head));
            const auto cap = static_cast<double>(s_.softcap);
            p[static_cast<size_t>(i)] = cap > 0.0 ? cap * std::tanh(sum / cap) : sum;
            top = std::max(top, p[static_cast<size_t>(i)]);
        }
        double total = 0.0;
        for (int i = begin_of(entry); i <= entry; ++i) {
            double & x = p[static_cast<size_t>(i)];
            x = std::exp(x - top);
            total += x;
        }
        for (double & x : p) {
            x /= total;
        }
        return p;
    }
    std::vector<double> expected_output(int entry, int head) {
        const std::vector<double> p = expected_scores(entry, head);
        std::vector<double> out(static_cast<size_t>(s_.n_embd_head), 0.0);
        for (int i = begin_of(entry); i <= entry; ++i) {
            const std::vector<float> v = values(v_, i, head / s_.group);
            for (size_t j = 0; j < out.size(); ++j) {
                out[j] += p[static_cast<size_t>(i)] * static_cast<double>(v[j]);
            }
        }
        return out;
    }

  private:
    shape s_;
    int n_kv_;
    tensor k_, v_; // seen as [n_embd_head, n_kv, n_head_kv]
    std::vector<int32_t> pos_, row_;

    // The same for an entry in whatever row it stands.
    static float number(int entry, int head, int i, int seed) {
        uint32_t x = static_cast<uint32_t>(entry) * 2654435761U + static_cast<uint32_t>(head) * 40503U +
                     static_cast<uint32_t>(i) * 2246822519U + static_cast<uint32_t>(seed) * 3266489917U;
        x = (x ^ x >> 15) * 2246822519U;
        x = (x ^ x >> 13) * 3266489917U;
        return static_cast<float>(x >> 8) / 8388608.0F - 1.0F;
    }

    char * place(tensor & t, int entry, int head) { return t.at(row_[static_cast<size_t>(entry)], head); }

    void fill(tensor & t, int entry, int head, int seed) {
        char * to = place(t, entry, head);
        for (int i = 0; i < s_.n_embd_head; ++i) {
            const float x = number(entry, head, i, seed);
            if (t.type == GGML_TYPE_F32) {
                reinterpret_cast<float *>(to)[i] = x;
            } else if (t.type == GGML_TYPE_F16) {
                reinterpret_cast<ggml_fp16_t *>(to)[i] = float_to_half(x);
            } else {
                q8_block & b = reinterpret_cast<q8_block *>(to)[i / Q8_BLOCK];
                b.scale = float_to_half(1.0F / 128.0F);
                b.values[i % Q8_BLOCK] = static_cast<int8_t>(x * 127.0F);
            }
        }
    }

    std::vector<float> values(tensor & t, int entry, int head) {
        std::vector<float> out(static_cast<size_t>(s_.n_embd_head));
        const char * from = place(t, entry, head);
        if (t.type == GGML_TYPE_F32) {
            std::memcpy(out.data(), from, out.size() * sizeof(float));
        } else {
            ggml_get_type_traits(t.type)->to_float(from, out.data(), s_.n_embd_head);
        }
        return out;
    }
};

const std::vector<shape> SHAPES = {
    {64, 3, 2, 530},
    {64, 1, 1, 300},
    {128, 7, 1, 300},
    {256, 4, 1, 270},
    {80, 2, 2, 300},
    {24, 5, 1, 530},
    {7, 2, 1, 530},
    {1, 1, 2, 70},
    {36, 6, 1, 260, GGML_TYPE_F32},
    {64, 3, 1, 523, GGML_TYPE_F32},
    {96, 4, 2, 300, GGML_TYPE_Q8_0},
    {64, 3, 1, 600, GGML_TYPE_F16, 37},
    {64, 2, 1, 600, GGML_TYPE_F16, 300},
    {40, 4, 1, 530, GGML_TYPE_F16, 1},
    {64, 3, 1, 400, GGML_TYPE_F16, 0, 0.5F},
    {64, 2, 1, 400, GGML_TYPE_F32, 100, 20.0F},
};

bool same_bits(const float * a, const float * b, size_t n) { return std::memcmp(a, b, n * sizeof(float)) == 0; }

// The last n rows of a problem, from the first entry that asks on.
struct span {
    int first;
    int n;
};

std::vector<span> spans_of(const shape & s) {
    return {{s.n_live - 1, 1}, {s.n_live - 5, 5}, {s.n_live - 30, 30}, {3, 2}};
}

void check_near(float got, double expected, double tolerance, const char * what, int line) {
    if (!(std::fabs(static_cast<double>(got) - expected) <= tolerance)) {
        report_failure(__FILE__, line, std::string(what) + " is " + shown(got) + ", expected " + shown(expected));
    }
}

} // namespace

CASE("attention is the plain sum's, for any head, type, window and softcap") {
    for (const shape & s : SHAPES) {
        problem p(s, 0, 0);
        const std::vector<float> out = p.attend(0, s.n_live, false);
        for (int entry = 0; entry < s.n_live; entry += entry < 70 ? 7 : 61) {
            for (int h = 0; h < p.n_head(); ++h) {
                const std::vector<double> expected = p.expected_output(entry, h);
                const float * got = out.data() + (static_cast<size_t>(entry) * static_cast<size_t>(p.n_head()) +
                                                  static_cast<size_t>(h)) *
                                                     expected.size();
                for (size_t i = 0; i < expected.size(); ++i) {
                    check_near(got[i], expected[i], 5e-6, "an output", __LINE__);
                }
            }
        }
    }
}

CASE("a row's attention has the same bits whatever rows are computed with it") {
    for (const shape & s : SHAPES) {
        problem p(s, 0, 0);
        const std::vector<float> all = p.attend(0, s.n_live, false);
        const size_t row = static_cast<size_t>(p.n_head() * s.n_embd_head);
        for (const span & part : spans_of(s)) {
            for (const bool split : {false, true}) {
                const std::vector<float> out = p.attend(part.first, part.n, split);
                CHECK_EQ(same_bits(out.data(), all.data() + static_cast<size_t>(part.first) * row, out.size()), true);
            }
        }
    }
}

CASE("attention has the same bits wherever the tokens lie in the cache, however long it is") {
    for (const shape & s : SHAPES) {
        problem p(s, 0, 0);
        problem moved(s, 5, 256);
        for (const span & part : spans_of(s)) {
            for (const bool split : {false, true}) {
                const std::vector<float> a = p.attend(part.first, part.n, split);
                const std::vector<float> b = moved.attend(part.first, part.n, split);
                CHECK_EQ(same_bits(a.data(), b.data(), a.size()), true);
            }
        }
    }
}

CASE("attention has the same bits with any number of threads") {
    for (const shape & s : SHAPES) {
        problem p(s, 0, 0);
        for (const span & part : spans_of(s)) {
            for (const bool split : {false, true}) {
                const std::vector<float> one = p.attend(part.first, part.n, split, 1);
                for (const int n_threads : {2, 5}) {
                    const std::vector<float> several = p.attend(part.first, part.n, split, n_threads);
                    CHECK_EQ(same_bits(one.data(), several.data(), one.size()), true);
                }
            }
        }
    }
}

CASE("scores are the plain softmax's, and 0 for what a row does not see") {
    for (const shape & s : SHAPES) {
        problem p(s, 0, 0);
        const int first = std::max(0, s.n_live - 70);
        const int n = s.n_live - first;
        const std::vector<float> out = p.scores(first, n);
        for (int row = 0; row < n; row += 23) {
            for (int h = 0; h < p.n_head(); ++h) {
                const std::vector<double> expected = p.expected_scores(first + row, h);
                const float * got = out.data() + static_cast<size_t>(h * n + row) * static_cast<size_t>(p.n_kv());
                for (size_t i = 0; i < expected.size(); ++i) {
                    check_near(got[i], expected[i], expected[i] == 0.0 ? 0.0 : 2e-6, "a score", __LINE__);
                }
            }
        }
    }
}

CASE("a row's scores have the same bits in any company, cache, length and number of threads") {
    for (const shape & s : SHAPES) {
        problem p(s, 0, 0);
        problem moved(s, 5, 256);
        const int n = std::min(40, s.n_live);
        const int first = s.n_live - n;
        const std::vector<float> all = p.scores(first, n);
        for (const int n_alone : {1, 2, 7, n}) {
            const std::vector<float> some = moved.scores(s.n_live - n_alone, n_alone, 3);
            for (int h = 0; h < p.n_head(); ++h) {
                for (int row = 0; row < n_alone; ++row) {
                    const float * a =
                        all.data() + static_cast<size_t>(h * n + n - n_alone + row) * static_cast<size_t>(p.n_kv());
                    const float * b =
                        some.data() + static_cast<size_t>(h * n_alone + row) * static_cast<size_t>(moved.n_kv());
                    CHECK_EQ(same_bits(a, b, static_cast<size_t>(p.n_kv())), true);
                }
            }
        }
    }
}

CASE("the sum over heads adds them in their order") {
    constexpr int N_KV = 2500;
    constexpr int N_HEAD = 5;
    tensor scores(GGML_TYPE_F32, N_KV, 3, N_HEAD);
    tensor sum(GGML_TYPE_F32, N_KV, 3, 1);
    for (int h = 0; h < N_HEAD; ++h) {
        for (int row = 0; row < 3; ++row) {
            for (int i = 0; i < N_KV; ++i) {
                scores.floats(row, h)[i] = 1.0F / static_cast<float>(1 + h * 31 + row * 7 + i);
            }
        }
    }
    run(KERNELS.sum_heads, sum, {&scores}, 2, nullptr);
    for (int row = 0; row < 3; ++row) {
        for (int i = 0; i < N_KV; ++i) {
            float expected = 0.0F;
            for (int h = 0; h < N_HEAD; ++h) {
                expected += scores.floats(row, h)[i];
            }
            CHECK_EQ(sum.floats(row, 0)[i], expected);
        }
    }
}

CASE("a NaN in K or V comes through to every row that sees it") {
    const shape s = {64, 2, 1, 300};
    for (const bool in_k : {true, false}) {
        problem p(s, 0, 0);
        p.spoil(in_k, 200);
        const std::vector<float> out = p.attend(0, s.n_live, false);
        for (int row = 0; row < s.n_live; ++row) {
            if (row < 128 || row >= 200) { // the rows between share its tile
                CHECK_EQ(std::isnan(out[static_cast<size_t>(row) * 128]), row >= 200);
            }
        }
    }
}
