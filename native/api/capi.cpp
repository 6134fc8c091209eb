// capi.cpp: the C interface. Translates handles and structs; decides nothing.

#include <algorithm>
#include <memory>
#include <string>

#include "api/boundary.h"
#include "api/capi_params.h"
#include "api/lazygguf.h"
#include "base/error.h"
#include "file/vocab.h"
#include "kernels/isa.h"
#include "kernels/kernel_speed.h"
#include "run/session.h"

#ifndef LAZY_GGML_VERSION
#error "LAZY_GGML_VERSION must name the ggml version of the headers"
#endif

struct lazy_file {
    lazygguf::gguf_file file;
};
// Sessions share the weights: a garbage collector may free a model's handle before its sessions' ones.
struct lazy_model {
    std::shared_ptr<const lazygguf::model> mdl;
    lazy_model(const std::string & path, const lazygguf::model_params & params)
        : mdl(std::make_shared<const lazygguf::model>(path, params)) {}
};
struct lazy_session {
    std::shared_ptr<const lazygguf::model> mdl; // goes after the session
    lazygguf::session sess;
    lazy_session(std::shared_ptr<const lazygguf::model> shared, const lazygguf::session_params & params,
                 lazygguf::keep_schedule schedule)
        : mdl(std::move(shared)), sess(*mdl, params, std::move(schedule)) {}
};

namespace lazygguf {
namespace {

static_assert(LAZY_MAX_SEGMENTS == MAX_SEGMENTS && LAZY_DEFAULT_QUERY == DEFAULT_QUERY && LAZY_MAX_QUERY == MAX_QUERY &&
                  LAZY_GPU_LAYERS_AUTO == GPU_LAYERS_AUTO,
              "the header's numbers are the core's");

// Runs `body` on a session that no other thread is inside of.
template <typename F> lazy_status exclusive(lazy_session * session, F && body) noexcept {
    if (session->sess.busy.test_and_set()) {
        return failed(LAZY_STATUS_BUSY, "another thread is using this session; give each thread a session of its own");
    }
    const auto turn = rpc_turn(!session->mdl->links.empty());
    const lazy_status result = guarded(body);
    session->sess.busy.clear();
    return result;
}

const char * type_name(ggml_backend_dev_t dev) {
    switch (ggml_backend_dev_type(dev)) {
        case GGML_BACKEND_DEVICE_TYPE_CPU: return "CPU";
        case GGML_BACKEND_DEVICE_TYPE_GPU: return is_rpc(dev) ? "RPC" : "GPU";
        case GGML_BACKEND_DEVICE_TYPE_IGPU: return "IGPU";
        default: return "ACCEL";
    }
}

lazy_device_info info_of(ggml_backend_dev_t dev) {
    lazy_device_info info = {ggml_backend_dev_name(dev), ggml_backend_dev_description(dev), type_name(dev), 0, 0};
    ggml_backend_dev_memory(dev, &info.memory_free, &info.memory_total);
    return info;
}

int32_t copy_positions(const std::vector<int32_t> & positions, int32_t * out) {
    std::copy(positions.begin(), positions.end(), out);
    return static_cast<int32_t>(positions.size());
}

void go_on_if(bool goes_on) {
    if (!goes_on) {
        fail(status::cancelled, "cancelled by the callback");
    }
}

// The report of a segment in the last eval, or null.
const segment_report * report_of(const lazy_session * session, int32_t segment) {
    const auto & reports = session->sess.result().segments;
    const bool known = segment >= 0 && static_cast<size_t>(segment) < reports.size();
    return known ? &reports[static_cast<size_t>(segment)] : nullptr;
}

} // namespace
} // namespace lazygguf

using namespace lazygguf;

extern "C" {

const char * lazy_ggml_version(void) { return ggml_version(); }
const char * lazy_ggml_version_compiled(void) { return LAZY_GGML_VERSION; }

const char * lazy_isa(void) {
    const char * name = nullptr;
    guarded([&] { name = isa_name().c_str(); });
    return name;
}
const char * lazy_isa_names(void) {
    static const std::string names = [] {
        std::string text;
        for (const std::string & name : isa_names()) {
            text += (text.empty() ? "" : ",") + name;
        }
        return text;
    }();
    return names.c_str();
}

lazy_status lazy_kernel_seconds(double * out, const char * type_name, int64_t n_in, int64_t n_out, int64_t n_rows,
                                bool is_ours, int32_t n_threads) {
    return guarded(
        [&] { *out = kernel_seconds(read_kernel_case(type_name, n_in, n_out, n_rows, is_ours, n_threads)); });
}

lazy_status lazy_file_open(lazy_file ** out, const char * path) {
    return guarded([&] { *out = new lazy_file{gguf_file(path)}; });
}
void lazy_file_free(lazy_file * file) { delete file; }
lazy_status lazy_file_check(const lazy_file * file) {
    return guarded([&] {
        const hparams hp = read_hparams(file->file);
        check_tensors(file->file, hp);
        check_vocab(file->file, hp.n_vocab);
    });
}
lazy_status lazy_file_windows(int32_t * out, int32_t n_max, int32_t * n, const lazy_file * file) {
    return guarded([&] {
        const hparams hp = read_hparams(file->file);
        for (int32_t il = 0; il < std::min(n_max, hp.n_layer); ++il) {
            out[il] = hp.layer(il).n_window;
        }
        *n = hp.n_layer;
    });
}
lazy_status lazy_file_check_vocab(const lazy_file * file) {
    return guarded([&] {
        const int64_t i = file->file.find_array("tokenizer.ggml.tokens", GGUF_TYPE_STRING);
        check_vocab(file->file, i < 0 ? 0 : static_cast<int>(gguf_get_arr_n(file->file.gguf(), i)));
    });
}
size_t lazy_file_size(const lazy_file * file) { return file->file.size(); }
int64_t lazy_file_n_kv(const lazy_file * file) { return gguf_get_n_kv(file->file.gguf()); }
const char * lazy_file_key(const lazy_file * file, int64_t i) { return gguf_get_key(file->file.gguf(), i); }
int64_t lazy_file_find_key(const lazy_file * file, const char * key) { return file->file.find(key); }
lazy_kv_type lazy_file_kv_type(const lazy_file * file, int64_t i) {
    return static_cast<lazy_kv_type>(gguf_get_kv_type(file->file.gguf(), i));
}
lazy_kv_type lazy_file_arr_type(const lazy_file * file, int64_t i) {
    return static_cast<lazy_kv_type>(gguf_get_arr_type(file->file.gguf(), i));
}
int64_t lazy_file_arr_n(const lazy_file * file, int64_t i) {
    const bool is_array = gguf_get_kv_type(file->file.gguf(), i) == GGUF_TYPE_ARRAY;
    return is_array ? static_cast<int64_t>(gguf_get_arr_n(file->file.gguf(), i)) : 1;
}
const char * lazy_file_str(const lazy_file * file, int64_t i, int64_t j) {
    const gguf_context * g = file->file.gguf();
    if (gguf_get_kv_type(g, i) == GGUF_TYPE_STRING) {
        return gguf_get_val_str(g, i);
    }
    const bool is_list = gguf_get_kv_type(g, i) == GGUF_TYPE_ARRAY && gguf_get_arr_type(g, i) == GGUF_TYPE_STRING;
    return is_list ? gguf_get_arr_str(g, i, static_cast<size_t>(j)) : nullptr;
}
double lazy_file_f64(const lazy_file * file, int64_t i, int64_t j) {
    return lazy_file_str(file, i, j) ? 0.0 : file->file.number(i, j);
}
int64_t lazy_file_i64(const lazy_file * file, int64_t i, int64_t j) {
    return lazy_file_str(file, i, j) ? 0 : file->file.integer(i, j);
}
int64_t lazy_file_n_tensors(const lazy_file * file) { return gguf_get_n_tensors(file->file.gguf()); }
void lazy_file_tensor(const lazy_file * file, int64_t i, lazy_tensor_info * out) {
    const gguf_context * g = file->file.gguf();
    out->name = gguf_get_tensor_name(g, i);
    out->type_name = ggml_type_name(gguf_get_tensor_type(g, i));
    std::copy_n(gguf_get_tensor_ne(g, i), 4, out->ne);
    out->offset = file->file.tensor_offset(i);
    out->n_bytes = gguf_get_tensor_size(g, i);
}

lazy_status lazy_devices(lazy_device_info * out, int32_t n_max, int32_t * n, const char * rpc_servers) {
    return guarded([&] {
        std::vector<ggml_backend_dev_t> devices = rpc_devices(split(rpc_servers));
        const std::vector<ggml_backend_dev_t> local = local_devices();
        devices.insert(devices.end(), local.begin(), local.end());
        for (size_t i = 0; i < devices.size() && i < static_cast<size_t>(n_max); ++i) {
            out[i] = info_of(devices[i]);
        }
        *n = static_cast<int32_t>(devices.size());
    });
}
lazy_status lazy_rpc_serve(const char * host_port, const char * devices, int32_t n_threads) {
    return guarded([&] {
        std::vector<ggml_backend_dev_t> lent;
        if (devices != nullptr) {
            lent = pick_devices(split(devices), local_devices());
        } else {
            device_request every_gpu;
            every_gpu.n_gpu_layers = GPU_LAYERS_AUTO;
            lent = find_devices(every_gpu);
        }
        if (lent.empty()) {
            lent.push_back(cpu_device());
        }
        rpc_serve(host_port, lent, n_threads);
    });
}
int32_t lazy_rpc_version(void) { return rpc_version(); }
bool lazy_rpc_is_connected(const char * host_port) { return rpc_is_connected(host_port); }
const char * lazy_file_lacking(const lazy_file * file, const char * device) {
    thread_local std::string text;
    const lazy_status result = guarded([&] { text = lacking_kernels(file->file, device); });
    return result == LAZY_STATUS_OK ? text.c_str() : lazy_last_error();
}

void lazy_model_params_init(lazy_model_params * params) {
    *params = {};
    params->version = LAZY_VERSION;
    params->use_mmap = true;
    params->n_ubatch = 512;
    params->type_k = params->type_v = LAZY_KV_DTYPE_F16;
}
lazy_status lazy_model_load(lazy_model ** out, const char * path, const lazy_model_params * params) {
    return guarded([&] {
        const auto turn = rpc_turn(params->rpc_servers != nullptr);
        *out = new lazy_model(path, read_params(*params));
    });
}
void lazy_model_free(lazy_model * model) {
    if (model != nullptr && model->mdl->links.lost().empty()) {
        const auto turn = rpc_turn(!model->mdl->links.empty());
        delete model;
    }
}
const char * lazy_model_lost_server(const lazy_model * model) {
    thread_local std::string lost;
    lost = model->mdl->links.lost();
    return lost.c_str();
}
int32_t lazy_model_n_vocab(const lazy_model * model) { return model->mdl->hp.n_vocab; }
int32_t lazy_model_n_ctx_train(const lazy_model * model) { return model->mdl->hp.n_ctx_train; }
int32_t lazy_model_n_layer(const lazy_model * model) { return model->mdl->hp.n_layer; }
int32_t lazy_model_n_embd(const lazy_model * model) { return model->mdl->hp.n_embd; }
int32_t lazy_model_n_head(const lazy_model * model) { return model->mdl->hp.n_head; }
int32_t lazy_model_n_head_kv(const lazy_model * model) { return model->mdl->hp.n_head_kv; }
int32_t lazy_model_n_embd_head(const lazy_model * model) { return model->mdl->hp.n_embd_head; }
const char * lazy_model_desc(const lazy_model * model) { return model->mdl->desc.c_str(); }

void lazy_session_params_init(lazy_session_params * params) {
    *params = {LAZY_VERSION, 0, 512, 1, 1, LAZY_KV_DTYPE_F16, LAZY_KV_DTYPE_F16, 0};
}
void lazy_eval_params_init(lazy_eval_params * params) {
    *params = {LAZY_VERSION, -1, -1, nullptr, nullptr, nullptr, 0, nullptr, nullptr, 0};
}

lazy_status lazy_session_new(lazy_session ** out, lazy_model * model, const lazy_session_params * params,
                             const lazy_schedule * schedule) {
    return guarded([&] {
        const hparams & hp = model->mdl->hp;
        const auto turn = rpc_turn(!model->mdl->links.empty());
        *out = new lazy_session(model->mdl, read_params(*params, hp), read_schedule(schedule));
    });
}
void lazy_session_free(lazy_session * session) {
    if (session != nullptr && session->mdl->links.lost().empty()) {
        const auto turn = rpc_turn(!session->mdl->links.empty());
        delete session;
    }
}

lazy_status lazy_session_eval(lazy_session * session, const int32_t * tokens, int32_t n,
                              const lazy_eval_params * params) {
    return exclusive(session, [&] { session->sess.eval(tokens, n, read_params(params)); });
}
const float * lazy_session_logits(const lazy_session * session) {
    const std::vector<float> & logits = session->sess.result().logits;
    return logits.empty() ? nullptr : logits.data();
}
int32_t lazy_session_n_tokens(const lazy_session * session) { return session->sess.n_tokens(); }
int32_t lazy_session_n_ctx(const lazy_session * session) { return session->sess.n_ctx(); }
const char * lazy_session_notes(const lazy_session * session) { return session->sess.notes().c_str(); }
lazy_status lazy_session_reset(lazy_session * session) {
    return exclusive(session, [&] { session->sess.reset(); });
}
lazy_status lazy_session_trim(lazy_session * session, int32_t n_tokens) {
    return exclusive(session, [&] { session->sess.trim(n_tokens); });
}
lazy_status lazy_session_mark(lazy_session * session) {
    return exclusive(session, [&] { session->sess.mark(); });
}
lazy_status lazy_session_forget(lazy_session * session, const int32_t * positions, int32_t n) {
    return exclusive(session, [&] { session->sess.forget(positions, n); });
}
lazy_status lazy_session_save(lazy_session * session, lazy_write write, void * user_data) {
    return exclusive(session, [&] {
        session->sess.save([&](const void * data, size_t n) { go_on_if(write(user_data, data, n)); });
    });
}
lazy_status lazy_session_saved_bytes(int64_t * out, lazy_session * session) {
    return exclusive(session, [&] { *out = static_cast<int64_t>(session->sess.saved_bytes()); });
}
lazy_status lazy_session_load(lazy_session * session, int64_t n_bytes, lazy_read read, void * user_data) {
    return exclusive(session, [&] {
        const auto n = static_cast<uint64_t>(std::max<int64_t>(n_bytes, 0));
        session->sess.load([&](void * out, size_t size) { go_on_if(read(user_data, out, size)); }, n);
    });
}
int32_t lazy_session_tokens(const lazy_session * session, int32_t * out) {
    return copy_positions(session->sess.tokens(), out);
}
void lazy_session_cancel(lazy_session * session) { session->sess.cancel(); }

void lazy_session_stats(const lazy_session * session, lazy_stats * out) {
    const class session & s = session->sess;
    *out = {};
    out->n_segments = s.n_segments();
    out->n_tokens = s.n_tokens();
    out->n_new = s.result().n_new;
    out->n_revived = s.result().n_revived;
    out->h2d_bytes = static_cast<int64_t>(s.result().work.moved.to_devices);
    out->d2h_bytes = static_cast<int64_t>(s.result().work.moved.to_host);
    out->n_submissions = s.result().work.n_submissions;
    out->n_waits = s.result().work.n_waits;
    for (int i = 0; i < s.n_segments(); ++i) {
        const segment_report * report = report_of(session, i);
        out->n_computed[i] = report ? report->n_computed : 0;
        out->n_live[i] = report ? static_cast<int32_t>(report->live.size()) : 0;
        out->n_layers[i] = s.segment(i).n_layers();
        out->kv_bytes += static_cast<int64_t>(s.segment(i).kv_bytes());
        out->aux_bytes += static_cast<int64_t>(s.segment(i).aux_bytes());
    }
}
int32_t lazy_session_live(const lazy_session * session, int32_t segment, int32_t * out) {
    const segment_report * report = report_of(session, segment);
    return report ? copy_positions(report->live, out) : 0;
}
int32_t lazy_session_cached(const lazy_session * session, int32_t segment, int32_t * out) {
    const bool known = segment >= 0 && segment < session->sess.n_segments();
    return known ? copy_positions(session->sess.segment(segment).cells.positions(), out) : 0;
}
int32_t lazy_session_scores(const lazy_session * session, int32_t segment, float * out) {
    const segment_report * report = report_of(session, segment);
    if (report == nullptr) {
        return 0;
    }
    std::copy(report->scores.begin(), report->scores.end(), out);
    return static_cast<int32_t>(report->scores.size());
}
lazy_status lazy_session_asked_by(const lazy_session * session, int32_t segment, int32_t begin, int32_t end,
                                  float * out, int32_t * n_out) {
    return guarded([&] {
        const class session & s = session->sess;
        std::vector<float> scores;
        if (segment >= 0 && begin >= 0 && end <= s.n_tokens()) {
            scores = s.asked_by(segment, {begin, end});
        }
        std::copy(scores.begin(), scores.end(), out);
        *n_out = static_cast<int32_t>(scores.size());
    });
}

} // extern "C"
