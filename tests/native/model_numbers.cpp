// model_numbers.cpp: which sizes and tensors of a model are refused, and in which words. Values only, no file.

#include <cmath>

#include "base/error.h"
#include "check.h"
#include "model/file_rules.h"

namespace lazygguf {
namespace {

const std::string PATH = "m.gguf";

shape_numbers small() { return {512, 32, 3, 32, 2, 1, 0, 1e-5}; }

// The message of what a call refuses, behind its kind; "" where it refuses nothing.
template <typename F> std::string refusal(F && act) {
    try {
        act();
    } catch (const error & refused) {
        return (refused.code == status::bad_file ? "bad file " : "unsupported ") + std::string(refused.what());
    }
    return "";
}

std::string of_shape(const shape_numbers & shape) {
    return refusal([&] { check_shape(PATH, shape); });
}

std::string of_tensor(const tensor_numbers & tensor, int64_t ne0, int64_t ne1, bool is_vector) {
    return refusal([&] { check_tensor(PATH, tensor, ne0, ne1, is_vector); });
}

CASE("sizes that fit together are good") {
    CHECK_EQ(of_shape(small()), "");
    shape_numbers shape = small();
    shape.n_embd = 33; // a head's width is said, so that heads need not divide it
    shape.key_length = 16;
    CHECK_EQ(of_shape(shape), "");
}

CASE("a size of 0 or beyond its limit is refused by name and value") {
    struct limit {
        const char * name;
        int64_t shape_numbers::* member;
        double high;
        const char * shown;
    };
    const limit limits[] = {
        {"context_length", &shape_numbers::n_ctx_train, 1 << 30, "1.07374e+09"},
        {"embedding_length", &shape_numbers::n_embd, 1 << 20, "1.04858e+06"},
        {"block_count", &shape_numbers::n_layer, MAX_LAYERS, "1024"},
        {"feed_forward_length", &shape_numbers::n_ff, 1 << 24, "1.67772e+07"},
        {"attention.head_count", &shape_numbers::n_head, 4096, "4096"},
    };
    for (const limit & l : limits) {
        for (const int64_t value : {int64_t(0), int64_t(-1), static_cast<int64_t>(l.high) + 1, int64_t(1000000000)}) {
            shape_numbers shape = small();
            shape.*l.member = value;
            if (static_cast<double>(value) >= 1 && static_cast<double>(value) <= l.high) {
                continue;
            }
            CHECK_EQ(of_shape(shape), format("bad file m.gguf: %s is %g, expected a value in [1, %s]", l.name,
                                             static_cast<double>(value), l.shown));
        }
    }
}

CASE("heads share K and V evenly, and cut the embedding evenly") {
    shape_numbers shape = small();
    shape.n_embd = 96;
    shape.n_head = 6;
    shape.n_head_kv = 4;
    CHECK_EQ(of_shape(shape), "bad file m.gguf: attention.head_count is 6, expected a multiple of head_count_kv 4");
    shape.n_head_kv = 0;
    CHECK_EQ(of_shape(shape), "bad file m.gguf: attention.head_count_kv is 0, expected a value in [1, 6]");
    shape.n_head_kv = 7;
    CHECK_EQ(of_shape(shape), "bad file m.gguf: attention.head_count_kv is 7, expected a value in [1, 6]");
    shape = small();
    shape.n_embd = 33;
    CHECK_EQ(of_shape(shape), "bad file m.gguf: embedding_length is 33, expected a multiple of attention.head_count 2");
}

CASE("the norms' epsilon is a small number above 0") {
    for (const double value : {0.0, -1e-5, 2.0, std::nan(""), HUGE_VAL, -HUGE_VAL}) {
        shape_numbers shape = small();
        shape.rms_eps = value;
        CHECK_EQ(of_shape(shape), format("bad file m.gguf: attention.layer_norm_rms_epsilon is %g, expected a value in "
                                         "[1e-12, 1]",
                                         value));
    }
}

CASE("a mixture of experts is another kind of model") {
    CHECK_EQ(refusal([] { check_experts(PATH, 8, "supported are x"); }),
             "unsupported m.gguf: mixture of 8 experts; supported are x");
    CHECK_EQ(refusal([] { check_experts(PATH, 0, "supported are x"); }), "");
}

CASE("a vector is F32, whatever has kernels") {
    for (const char * type : {"f16", "bf16", "q8_0", "q4_K"}) {
        tensor_numbers tensor;
        tensor.name = "blk.1.ffn_norm.weight";
        tensor.ne[0] = 32;
        tensor.type = type;
        CHECK_EQ(of_tensor(tensor, 32, 1, true),
                 format("bad file m.gguf: tensor 'blk.1.ffn_norm.weight' is of type %s, expected f32", type));
        CHECK_EQ(of_tensor(tensor, 32, 1, false), "");
    }
}

CASE("a matrix is of a type that something multiplies with") {
    tensor_numbers tensor;
    tensor.name = "token_embd.weight";
    tensor.ne[0] = 256;
    tensor.ne[1] = 270;
    for (const char * type : {"q8_1", "q8_K", "i8", "i16", "i32", "i64", "f64"}) {
        tensor.type = type;
        tensor.has_kernels = false;
        CHECK_EQ(of_tensor(tensor, 256, 270, false),
                 format("unsupported m.gguf: tensor 'token_embd.weight' is of type %s, which ggml has no kernel for; "
                        "quantize the model to another type",
                        type));
        tensor.has_kernels = true;
        CHECK_EQ(of_tensor(tensor, 256, 270, false), "");
    }
}

CASE("a tensor has the shape that the model's sizes give") {
    tensor_numbers tensor;
    tensor.name = "output.weight";
    tensor.type = "f32";
    tensor.ne[0] = 7;
    CHECK_EQ(of_tensor(tensor, 32, 1, true),
             "bad file m.gguf: tensor 'output.weight' has shape [7, 1, 1, 1], expected [32, 1, 1, 1]");
    tensor.ne[0] = 32;
    tensor.ne[3] = 2;
    CHECK_EQ(of_tensor(tensor, 32, 1, true),
             "bad file m.gguf: tensor 'output.weight' has shape [32, 1, 1, 2], expected [32, 1, 1, 1]");
}

} // namespace
} // namespace lazygguf
