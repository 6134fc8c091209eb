// lazygguf.h: the C interface of the native core, and the cdef that cffi reads.
//
// Owns the contract between C++ and every other language: opaque handles, plain structs, status codes.
// Fallible calls return lazy_status and write outputs only on success; the message of the last failure on this
// thread is in lazy_last_error(). Accessors return values and cannot fail. lazy_*_free(NULL) is legal.
// No exception leaves the library.
#ifndef LAZYGGUF_H
#define LAZYGGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define LAZY_API
#else
#define LAZY_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// clang-format off
// <cdef>

typedef enum lazy_status {
    LAZY_STATUS_OK = 0,
    LAZY_STATUS_INVALID_ARGUMENT = 1, // a value the caller chose is out of range
    LAZY_STATUS_BAD_FILE = 2,         // not a whole, well-formed GGUF model
    LAZY_STATUS_UNSUPPORTED = 3,      // a well-formed model of a kind this library does not run
    LAZY_STATUS_CONTEXT_FULL = 4,     // the tokens do not fit into n_ctx
    LAZY_STATUS_NO_MEMORY = 5,
    LAZY_STATUS_CANCELLED = 6,        // lazy_session_cancel, or the progress callback said stop
    LAZY_STATUS_BUSY = 7,             // another thread is inside this session
    LAZY_STATUS_FAILED = 8            // the backend failed, or the weights gave NaN or Inf
} lazy_status;

typedef struct lazy_file lazy_file;       // an opened and checked GGUF file, metadata only
typedef struct lazy_model lazy_model;     // weights; shareable between sessions and threads
typedef struct lazy_session lazy_session; // one conversation: KV cache, aux cache, schedule; one thread at a time

const char * lazy_last_error(void);            // of this thread; "" when nothing failed
const char * lazy_ggml_version(void);          // of the ggml library in this process
const char * lazy_ggml_version_compiled(void); // of the ggml headers this library was compiled with

// The instruction set that our kernels use in this process ("avx2", ...), and those that this CPU has, best first, with
// commas. NULL where LAZYGGUF_ISA names none of them: see lazy_last_error().
const char * lazy_isa(void);
const char * lazy_isa_names(void);

// Seconds of one multiplication of a matrix [n_in, n_out] of noise of this type ("Q4_K", ...) with n_rows rows, the
// best of several: by our kernel or by ggml's fastest. 0 where there is no such kernel.
lazy_status lazy_kernel_seconds(double * out, const char * type_name, int64_t n_in, int64_t n_out, int64_t n_rows,
                                bool is_ours, int32_t n_threads);

// ---- files -------------------------------------------------------------------------------------------------------

// Value types, numbered as GGUF numbers them.
typedef enum lazy_kv_type {
    LAZY_KV_TYPE_UINT8 = 0, LAZY_KV_TYPE_INT8 = 1, LAZY_KV_TYPE_UINT16 = 2, LAZY_KV_TYPE_INT16 = 3,
    LAZY_KV_TYPE_UINT32 = 4, LAZY_KV_TYPE_INT32 = 5, LAZY_KV_TYPE_FLOAT32 = 6, LAZY_KV_TYPE_BOOL = 7,
    LAZY_KV_TYPE_STRING = 8, LAZY_KV_TYPE_ARRAY = 9, LAZY_KV_TYPE_UINT64 = 10, LAZY_KV_TYPE_INT64 = 11,
    LAZY_KV_TYPE_FLOAT64 = 12
} lazy_kv_type;

typedef struct lazy_tensor_info {
    const char * name;
    const char * type_name; // "Q4_K", "F32", ...
    int64_t      ne[4];     // ggml order: ne[0] is the contiguous dimension
    size_t       offset;    // bytes, from the start of the file
    size_t       n_bytes;
} lazy_tensor_info;

// Opens and checks the container: header, key-value pairs, tensor infos, and that every tensor lies inside the file.
lazy_status  lazy_file_open(lazy_file ** out, const char * path);
void         lazy_file_free(lazy_file * file);
// Checks the rest of what lazy_model_load checks, without reading weights: architecture, hyper-parameters, tensors
// and vocabulary.
lazy_status  lazy_file_check(const lazy_file * file);
// By layer, how many positions up to its own a token sees; 0: all. out has room for n_max layers; *n is how many there
// are.
lazy_status  lazy_file_windows(int32_t * out, int32_t n_max, int32_t * n, const lazy_file * file);
// Checks the vocabulary alone, for a file without tensors.
lazy_status  lazy_file_check_vocab(const lazy_file * file);
size_t       lazy_file_size(const lazy_file * file); // bytes
int64_t      lazy_file_n_kv(const lazy_file * file);
const char * lazy_file_key(const lazy_file * file, int64_t i);
int64_t      lazy_file_find_key(const lazy_file * file, const char * key); // -1: absent
lazy_kv_type lazy_file_kv_type(const lazy_file * file, int64_t i);
lazy_kv_type lazy_file_arr_type(const lazy_file * file, int64_t i); // element type; only for arrays
int64_t      lazy_file_arr_n(const lazy_file * file, int64_t i);    // 1 for a scalar
// Element j of value i (j = 0 for a scalar). Strings are NUL-terminated, their bytes as in the file.
const char * lazy_file_str(const lazy_file * file, int64_t i, int64_t j); // NULL unless a string
double       lazy_file_f64(const lazy_file * file, int64_t i, int64_t j); // 0 for a string
int64_t      lazy_file_i64(const lazy_file * file, int64_t i, int64_t j); // 0 for a string
int64_t      lazy_file_n_tensors(const lazy_file * file);
void         lazy_file_tensor(const lazy_file * file, int64_t i, lazy_tensor_info * out);

// ---- architectures -----------------------------------------------------------------------------------------------

// A model that is about to be written.
typedef struct lazy_shape {
    const char * arch; // general.architecture
    int32_t n_vocab;
    int32_t n_embd;
    int32_t n_layer;
    int32_t n_head;
    int32_t n_head_kv;
    int32_t n_embd_head;
    int32_t n_ff;
} lazy_shape;

// The tensors that a model of this shape may have, in file order; offset, n_bytes and type_name mean nothing. out and
// required have room for n_max of them; *n is how many there are. Names are valid until the next call on this thread.
lazy_status lazy_shape_tensors(lazy_tensor_info * out, bool * required, int32_t n_max, int32_t * n,
                               const lazy_shape * shape);

// ---- devices -----------------------------------------------------------------------------------------------------

typedef struct lazy_device_info {
    const char * name;        // "Vulkan0", "RPC0", "CPU"
    const char * description; // of an RPC device: its server's HOST:PORT
    const char * type;        // "CPU", "GPU", "IGPU", "ACCEL", "RPC"
    size_t       memory_free; // bytes
    size_t       memory_total;
} lazy_device_info;

// The devices that ggml has here, and those of the servers ("HOST:PORT,HOST:PORT", or NULL); RPC devices first, as
// models take them. out has room for n_max of them; *n is how many there are. A server must answer: ggml ends the
// process where it does not.
lazy_status lazy_devices(lazy_device_info * out, int32_t n_max, int32_t * n, const char * rpc_servers);
// Lends devices to other machines. devices: names with commas; NULL: every GPU, else the CPU. Returns only when it
// cannot listen.
lazy_status lazy_rpc_serve(const char * host_port, const char * devices, int32_t n_threads);
// Major version of the RPC protocol that this library speaks; -1 where ggml was built without RPC.
int32_t     lazy_rpc_version(void);
bool        lazy_rpc_is_connected(const char * host_port); // by a model of this process
// What keeps a device from running a model: one line for each kind of weights or operation it has no kernel for, ""
// where there is none. Valid until the next call on this thread.
const char * lazy_file_lacking(const lazy_file * file, const char * device);

// ---- models ------------------------------------------------------------------------------------------------------

// How the layers' matrices on the CPU are multiplied with.
typedef enum lazy_weights {
    LAZY_WEIGHTS_AS_IS = 0, // by ggml's kernels, as llama.cpp does
    LAZY_WEIGHTS_FAST = 1   // by our kernels, where there are any: results do not depend on how a prompt is cut
} lazy_weights;

typedef enum lazy_kv_dtype { LAZY_KV_DTYPE_F16 = 1, LAZY_KV_DTYPE_F32 = 0, LAZY_KV_DTYPE_Q8_0 = 8 } lazy_kv_dtype;

typedef enum lazy_placement {
    LAZY_PLACEMENT_WORK = 0, // on the GPU: the layers that see the most tokens
    LAZY_PLACEMENT_LAST = 1  // the last layers, as llama.cpp does
} lazy_placement;

typedef struct lazy_model_params {
    int32_t        version;      // LAZY_VERSION 1
    int32_t        n_gpu_layers; // layers on GPU devices, the output layer among them; -1 = all,
                                 //   LAZY_GPU_LAYERS_AUTO = as many as fit into free device memory, or none
    bool           use_mmap;     // map the file instead of reading it
    lazy_weights   weights;      // of the layers on the CPU
    int32_t        n_layer;      // layers that sessions will read, the first ones; the others get no faster form. 0 = all
    const char *   devices;      // names with commas; NULL: every GPU; "none": no device but the CPU
    const char *   rpc_servers;  // "HOST:PORT,HOST:PORT" or NULL; the caller has seen that they answer
    lazy_placement placement;
    const struct lazy_schedule * schedule; // the sessions' one, which says how many tokens a layer sees; NULL: dense
    int32_t        n_ctx;        // what sessions will ask for, which placement makes room for; 0 = n_ctx_train
    int32_t        n_ubatch;
    lazy_kv_dtype  type_k;
    lazy_kv_dtype  type_v;
} lazy_model_params;

void         lazy_model_params_init(lazy_model_params * params);
lazy_status  lazy_model_load(lazy_model ** out, const char * path, const lazy_model_params * params);
void         lazy_model_free(lazy_model * model); // the weights stay until its last session is freed
int32_t      lazy_model_n_vocab(const lazy_model * model);
int32_t      lazy_model_n_ctx_train(const lazy_model * model);
int32_t      lazy_model_n_layer(const lazy_model * model);
int32_t      lazy_model_n_embd(const lazy_model * model);
int32_t      lazy_model_n_head(const lazy_model * model);
int32_t      lazy_model_n_head_kv(const lazy_model * model);
int32_t      lazy_model_n_embd_head(const lazy_model * model);
const char * lazy_model_desc(const lazy_model * model); // one line: architecture, weight bytes by buffer type, where
                                                        //   the layers are
// "HOST:PORT" of a server whose connection is closed, "" where all stand. A model with a lost server, and its sessions,
// are not freed: ggml would end the process.
const char * lazy_model_lost_server(const lazy_model * model);

// ---- keep schedules ----------------------------------------------------------------------------------------------

// One pruning point. After layer il at most keep * (tokens in the context) tokens go on.
typedef struct lazy_point {
    int32_t         il;      // 0-based; ascending over the points; at most n_layer - 2; -1: before layer 0, by the
                             //   scores given to eval; heads and n_query are not looked at there
    double          keep;    // (0, 1]; never rising over the points
    const int32_t * heads;   // NULL: mean over all heads; else these heads, combined by max
    int32_t         n_heads;
    int32_t         n_query; // this many of the newest tokens ask; 0: the query span given to eval ("question") and
                             //   the newest token
    int32_t         pool;    // average over this many neighbours by position; odd, 1 = none
    const int32_t * head_layers; // n_heads; the layer of each head, one of the segment that il ends; NULL: il
    int32_t         n_layers;    // without heads: the maximum over this many layers, the last ones of the segment
    double          mass;        // (0, 1]: the fewest tokens that hold this share of the scores go on, if fewer than
                                 //   keep allows; 1: as many as keep allows
    bool            query_max; // the maximum over the asking tokens, head by head; false: their mean
    double          keep_min;    // [0, keep]: share of the tokens that goes on however little of the mass they hold
} lazy_point;

typedef struct lazy_schedule {
    int32_t            version;    // LAZY_VERSION 1
    const lazy_point * points;
    int32_t            n_points;   // 0: dense
    int32_t            n_sink;     // the first n_sink tokens are never pruned
    int32_t            min_prompt; // contexts shorter than this run dense
    int32_t            max_revive; // old tokens revived per decode step; -1 = unlimited
    double             revive_margin; // a decode step revives a token only where its score is this share above the
                                      //   lowest one that was selected; 0: any
    double             mean_revive; // over the decode steps after a prompt: what a step leaves over is saved for later
                                    //   ones, which still revive max_revive at most; 0: no such limit
    bool               decode_cached; // a decode step attends to all that a segment holds, selected or not
    bool               dense_unasked; // a prompt for which no query span is given runs dense where one would ask
} lazy_schedule;

// ---- selection ---------------------------------------------------------------------------------------------------

// How many of n_tokens a share allows: floor(keep * n_tokens), safe against 0.29 * 100 = 28.999...; keep in [0, 1].
lazy_status  lazy_keep_count(int32_t * out, double keep, int32_t n_tokens);
// How many tokens go on at a pruning point before layer 0, as a session counts them, pooling apart: the fewest that
// hold `mass` of the scores, at least keep_min and at most keep of the n tokens. scores (n), by position: inf is read
// in any case and counts among those that go on; NaN is a token of the context that does not go on. Where more than keep
// allows are inf, more go on than this. Shares in [0, 1], keep_min at most keep.
lazy_status  lazy_count_kept(int32_t * out, const float * scores, int32_t n, double keep, double keep_min, double mass);

// ---- sessions ----------------------------------------------------------------------------------------------------

typedef struct lazy_session_params {
    int32_t       version;   // LAZY_VERSION 1
    int32_t       n_ctx;     // tokens; 0 = n_ctx_train
    int32_t       n_ubatch;  // rows per graph
    int32_t       n_threads; // decode
    int32_t       n_threads_batch; // prefill
    lazy_kv_dtype type_k;
    lazy_kv_dtype type_v;
    int32_t       n_layer;   // layers read; 0 = all. Fewer give no logits, only attention, and take no schedule
} lazy_session_params;

// Called after every ubatch with work done and work to do, both in prompt tokens. false cancels the step.
typedef bool (*lazy_progress)(void * user_data, int32_t n_done, int32_t n_total);

// What the rows of the query span look at while they are read, softmax over the tokens up to their own; for sessions
// without a schedule. The span must lie in the new tokens and hold at most LAZY_MAX_QUERY.
typedef struct lazy_attention {
    const int32_t * layers;   // ascending
    int32_t         n_layers;
    bool            by_head;  // false: the mean over heads
    bool            by_query; // false: the mean over asking rows; by_head is by_query too
    float *         out;      // F32, by_head (n_layers, n_query, n_head, n_tokens), by_query (n_layers, n_query,
                              //   n_tokens), else (n_layers, n_tokens)
    int64_t         n_out;    // floats it has room for: exactly these
} lazy_attention;

typedef struct lazy_eval_params {
    int32_t       version;     // LAZY_VERSION 1
    int32_t       query_begin; // span [query_begin, query_end) of positions that asks where n_query is 0;
    int32_t       query_end;   //   -1, -1: in a decode step the last span, else the last LAZY_DEFAULT_QUERY tokens
    lazy_progress progress;    // may be NULL
    void *        user_data;
    const float * scores;      // for a pruning point before layer 0: one for every position in the context, old and
    int32_t       n_scores;    //   new; higher is kept; inf: read in any case; NaN: a new token goes on, an old
                               //   one stays as it was. NULL: all new tokens go on, and what went on before
    const lazy_attention * attention; // what is to be recorded; NULL: nothing
    const int32_t * protect;   // positions that are never pruned, in this and later steps; ascending, among those in
    int32_t       n_protect;   //   the context, old and new
} lazy_eval_params;

// Of the last eval. Arrays are indexed by segment, n_segments of them are filled.
typedef struct lazy_stats {
    int32_t n_segments;
    int32_t n_tokens;         // in the context
    int32_t n_new;            // tokens this eval added
    int32_t n_computed[64];   // rows computed
    int32_t n_live[64];       // tokens live in the segment
    int32_t n_layers[64];     // layers of the segment
    int32_t n_revived;        // old tokens computed in this step, each counted once
    int64_t kv_bytes;         // K/V rows held in memory
    int64_t aux_bytes;        // aux rows held in memory
    int64_t h2d_bytes;        // that went from host memory to devices in this step; 0 where all is on the CPU
    int64_t d2h_bytes;        // the other way; what goes from one device to another counts in both
    int32_t n_submissions;    // graphs given to the devices in this step; 1 in a plain decode step on one device
    int32_t n_waits;          // times that the host waited for them
} lazy_stats;

void          lazy_session_params_init(lazy_session_params * params);
void          lazy_eval_params_init(lazy_eval_params * params);
lazy_status   lazy_session_new(lazy_session ** out, lazy_model * model, const lazy_session_params * params,
                               const lazy_schedule * schedule); // schedule may be NULL: dense
void          lazy_session_free(lazy_session * session);
// Reads tokens[0..n) after what the session holds. On any failure the session is as it was before the call.
lazy_status   lazy_session_eval(lazy_session * session, const int32_t * tokens, int32_t n,
                                const lazy_eval_params * params); // params may be NULL
// Of the newest token: F32 [n_vocab], valid until the next call on the session; NULL before the first eval and
// after a reset or a trim, but for a trim to a mark.
const float * lazy_session_logits(const lazy_session * session);
int32_t       lazy_session_n_tokens(const lazy_session * session);
int32_t       lazy_session_n_ctx(const lazy_session * session);
// What runs on the CPU though its layer is on another device, and why; "" where nothing does.
const char *  lazy_session_notes(const lazy_session * session);
lazy_status   lazy_session_reset(lazy_session * session);
lazy_status   lazy_session_trim(lazy_session * session, int32_t n_tokens); // keeps positions [0, n_tokens)
// Remembers the state: a trim to this many tokens brings it back with its logits, and forgets what was revived since.
// One mark; it lasts while single tokens are read, until a shorter trim, a forget or a reset.
lazy_status   lazy_session_mark(lazy_session * session);
// Gives the K/V rows of n positions back, the newest token's not: they wait unread, as if they had not gone on before
// layer 0. Only with a pruning point there (il -1).
lazy_status   lazy_session_forget(lazy_session * session, const int32_t * positions, int32_t n);
// Takes n bytes of a saved session, or gives the next n. false ends the call with LAZY_STATUS_CANCELLED.
typedef bool (*lazy_write)(void * user_data, const void * data, size_t n);
typedef bool (*lazy_read)(void * user_data, void * out, size_t n);
// The whole session as bytes, for a session of the same weights, types and schedule, in any process: it goes on as this
// one would. The bytes have no checksum and no sign of the weights; files that do are read/saved.py's.
lazy_status   lazy_session_save(lazy_session * session, lazy_write write, void * user_data);
lazy_status   lazy_session_saved_bytes(int64_t * out, lazy_session * session); // what a save gives now
// Puts n_bytes that a save gave in the place of what the session holds. Whatever they are, lengths and values are
// checked before anything of the session is touched. On any failure it is as it was.
lazy_status   lazy_session_load(lazy_session * session, int64_t n_bytes, lazy_read read, void * user_data);
int32_t       lazy_session_tokens(const lazy_session * session, int32_t * out); // ids by position; returns how many
void          lazy_session_cancel(lazy_session * session);                 // from any thread or a signal handler
void          lazy_session_stats(const lazy_session * session, lazy_stats * out);
// Positions live in a segment during the last eval, ascending; out has room for n_tokens. Returns how many.
int32_t       lazy_session_live(const lazy_session * session, int32_t segment, int32_t * out);
// Positions that have K/V rows in a segment, ascending; out has room for n_tokens. Returns how many.
int32_t       lazy_session_cached(const lazy_session * session, int32_t segment, int32_t * out);
// Scores of the last eval at the pruning point that ends a segment, by position: F32, NaN where a position was not
// live; out has room for n_tokens. Returns how many are filled: n_tokens, or 0 where the point was not scored.
int32_t       lazy_session_scores(const lazy_session * session, int32_t segment, float * out);
// The same as the tokens at [begin, end) alone ask, those of them that the point remembers: the question's, and the
// newest one. Without pruning too, where there is a schedule; 0 where a position was not live. n_out: how many are
// filled, n_tokens, or 0 where none of those tokens is remembered.
lazy_status   lazy_session_asked_by(const lazy_session * session, int32_t segment, int32_t begin, int32_t end,
                                    float * out, int32_t * n_out);

// </cdef>
// clang-format on

enum {
    LAZY_VERSION = 1,
    LAZY_DEFAULT_QUERY = 24,
    LAZY_MAX_QUERY = 128,
    LAZY_MAX_SEGMENTS = 64,
    LAZY_GPU_LAYERS_AUTO = -2
};

#ifdef __cplusplus
}
#endif

#endif // LAZYGGUF_H
