// rpc.h: machines that lend their devices over ggml's RPC.
//
// Owns the connections' addresses and the news that one of them is gone: ggml ends the process when it writes to a lost
// connection, so the socket is looked at before ggml is asked, and where that is too late our line comes first.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include <ggml-backend.h>

namespace lazygguf {

// The devices of these servers ("HOST:PORT"), which are connected to. The caller has made sure that they answer: ggml
// ends the process where one does not. Fails where ggml was built without RPC.
std::vector<ggml_backend_dev_t> rpc_devices(const std::vector<std::string> & endpoints);

// Major version of the protocol, -1 where ggml was built without RPC.
int rpc_version();

// Does a model of this process hold a connection to it, be it a lost one?
bool rpc_is_connected(const std::string & endpoint);

bool is_rpc(ggml_backend_dev_t dev);

// Runs a server on `endpoint` for one client after another. Returns only when it cannot listen.
void rpc_serve(const std::string & endpoint, std::vector<ggml_backend_dev_t> devices, int n_threads);

// The connections of one model.
class rpc_links {
  public:
    // Remembers the socket that ggml has just opened to `endpoint`.
    void add(const std::string & endpoint);
    bool empty() const { return endpoints_.empty(); }
    // The first server whose connection is closed, "" where all stand.
    std::string lost() const;
    // Fails with FAILED and the server's name where a connection is closed.
    void check() const;

    rpc_links() = default;
    rpc_links(const rpc_links &) = delete;
    rpc_links & operator=(const rpc_links &) = delete;
    ~rpc_links(); // after the buffers there

  private:
    std::vector<std::string> endpoints_;
};

// Locks the RPC connections of this process: models share one per server, and a buffer must not be freed between
// rpc_buffers_freed() and the run. Not locked where `uses_rpc` is false.
std::unique_lock<std::recursive_mutex> rpc_turn(bool uses_rpc);

// Number of freed RPC buffers. A server forgets a cached graph when any buffer is freed, and ends the connection when
// asked to run it: so a kept graph is valid only while this is unchanged.
uint64_t rpc_buffers_freed();
void note_rpc_buffer_freed();

} // namespace lazygguf
