// rpc.cpp: connections to RPC servers, and what is said when one is lost.

#include "devices/rpc.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>

#include <arpa/inet.h>
#include <ggml-rpc.h>
#include <ggml.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"

namespace lazygguf {
namespace {

constexpr int MAX_FD = 4096; // sockets are looked for below this number

#ifdef POLLRDHUP
constexpr short HANG_UP = POLLRDHUP;
#else
constexpr short HANG_UP = 0;
#endif

using add_server_t = ggml_backend_reg_t (*)(const char * endpoint);
using start_server_t = void (*)(const char *, const char *, size_t, size_t, ggml_backend_dev_t *);

template <typename F> F rpc_proc(const char * name) {
    ggml_backend_reg_t reg = ggml_backend_reg_by_name("RPC");
    void * proc = reg ? ggml_backend_reg_get_proc_address(reg, name) : nullptr;
    if (proc == nullptr) {
        fail(status::invalid_argument, "this ggml has no RPC: install llama-cpp-python with "
                                       "CMAKE_ARGS=\"-DGGML_RPC=ON\", and lazygguf with the same");
    }
    return reinterpret_cast<F>(proc);
}

// A socket to a server. Linked models share one connection, which is ggml's.
struct link {
    sockaddr_in address = {};
    int fd = -1; // -1: not found, nothing is known of it
    int n_users = 0;
};

std::mutex links_mutex;
std::map<std::string, link> links; // by endpoint

bool leads_to(int fd, const sockaddr_in & address) {
    sockaddr_in peer = {};
    socklen_t size = sizeof(peer);
    return getpeername(fd, reinterpret_cast<sockaddr *>(&peer), &size) == 0 && peer.sin_family == AF_INET &&
           peer.sin_port == address.sin_port && peer.sin_addr.s_addr == address.sin_addr.s_addr;
}

bool has_hung_up(const link & l) {
    if (l.fd < 0) {
        return false;
    }
    pollfd p = {l.fd, HANG_UP, 0};
    const bool closed = poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR | POLLNVAL | HANG_UP)) != 0;
    return closed || !leads_to(l.fd, l.address);
}

sockaddr_in resolve(const std::string & endpoint) {
    const size_t colon = endpoint.find(':');
    addrinfo hints = {};
    hints.ai_family = AF_INET; // as ggml connects
    hints.ai_socktype = SOCK_STREAM;
    addrinfo * found = nullptr;
    sockaddr_in address = {};
    if (getaddrinfo(endpoint.substr(0, colon).c_str(), endpoint.substr(colon + 1).c_str(), &hints, &found) == 0) {
        std::memcpy(&address, found->ai_addr, sizeof(address));
        freeaddrinfo(found);
    }
    return address;
}

std::string lost_text(const std::string & endpoint) {
    return format("the RPC server %s has closed the connection: it ended, or the network failed; start it again, and "
                  "then this program",
                  endpoint.c_str());
}

// ggml keeps a connection as long as anything uses it, also a lost one.
void check_not_lost(const std::string & endpoint) {
    const std::lock_guard<std::mutex> lock(links_mutex);
    const auto found = links.find(endpoint);
    if (found != links.end() && has_hung_up(found->second)) {
        fail(status::failed, lost_text(endpoint));
    }
}

ggml_abort_callback_t previous_abort = nullptr;

// ggml is about to end the process: says which server is the cause, where one is.
void on_ggml_abort(const char * message) {
    if (links_mutex.try_lock()) { // a thread that died inside must not stop the message
        for (const auto & [endpoint, l] : links) {
            if (has_hung_up(l)) {
                std::fprintf(stderr, "lazygguf: error: %s\n", lost_text(endpoint).c_str());
            }
        }
        links_mutex.unlock();
    }
    if (previous_abort != nullptr) {
        previous_abort(message);
    } else {
        std::fprintf(stderr, "%s\n", message);
    }
    std::fflush(stderr);
}

std::atomic<uint64_t> n_freed{0};
std::recursive_mutex turn_mutex;

} // namespace

std::vector<ggml_backend_dev_t> rpc_devices(const std::vector<std::string> & endpoints) {
    std::vector<ggml_backend_dev_t> devices;
    for (const std::string & endpoint : endpoints) {
        check_not_lost(endpoint);
        ggml_backend_reg_t reg = rpc_proc<add_server_t>("ggml_backend_rpc_add_server")(endpoint.c_str());
        const size_t n = reg == nullptr ? 0 : ggml_backend_reg_dev_count(reg);
        if (n == 0) {
            fail(status::failed, format("the RPC server %s lends no device", endpoint.c_str()));
        }
        for (size_t i = 0; i < n; ++i) {
            devices.push_back(ggml_backend_reg_dev_get(reg, i));
        }
    }
    return devices;
}

int rpc_version() { return ggml_backend_reg_by_name("RPC") == nullptr ? -1 : RPC_PROTO_MAJOR_VERSION; }

bool rpc_is_connected(const std::string & endpoint) {
    const std::lock_guard<std::mutex> lock(links_mutex);
    return links.count(endpoint) > 0;
}

bool is_rpc(ggml_backend_dev_t dev) {
    ggml_backend_reg_t reg = ggml_backend_reg_by_name("RPC");
    return reg != nullptr && ggml_backend_dev_backend_reg(dev) == reg;
}

void rpc_serve(const std::string & endpoint, std::vector<ggml_backend_dev_t> devices, int n_threads) {
    rpc_proc<start_server_t>("ggml_backend_rpc_start_server")(
        endpoint.c_str(), /*cache_dir=*/nullptr, static_cast<size_t>(n_threads), devices.size(), devices.data());
    fail(status::failed, format("cannot serve on %s", endpoint.c_str()));
}

void rpc_links::add(const std::string & endpoint) {
    if (std::find(endpoints_.begin(), endpoints_.end(), endpoint) != endpoints_.end()) {
        return; // another device of the same server
    }
    const std::lock_guard<std::mutex> lock(links_mutex);
    static const bool installed = [] {
        previous_abort = ggml_set_abort_callback(on_ggml_abort);
        return true;
    }();
    (void)installed;
    link & l = links[endpoint];
    if (l.n_users == 0) {
        l.address = resolve(endpoint);
        l.fd = -1;
        for (int fd = 3; fd < MAX_FD && l.fd < 0; ++fd) {
            l.fd = leads_to(fd, l.address) ? fd : -1;
        }
    }
    ++l.n_users;
    endpoints_.push_back(endpoint);
}

std::string rpc_links::lost() const {
    const std::lock_guard<std::mutex> lock(links_mutex);
    const auto found =
        std::find_if(endpoints_.begin(), endpoints_.end(), [](const std::string & e) { return has_hung_up(links[e]); });
    return found == endpoints_.end() ? std::string() : *found;
}

void rpc_links::check() const {
    if (const std::string endpoint = lost(); !endpoint.empty()) {
        fail(status::failed, lost_text(endpoint));
    }
}

rpc_links::~rpc_links() {
    if (!endpoints_.empty()) {
        note_rpc_buffer_freed();
    }
    const std::lock_guard<std::mutex> lock(links_mutex);
    for (const std::string & endpoint : endpoints_) {
        if (--links[endpoint].n_users == 0) {
            links.erase(endpoint);
        }
    }
}

std::unique_lock<std::recursive_mutex> rpc_turn(bool uses_rpc) {
    return uses_rpc ? std::unique_lock<std::recursive_mutex>(turn_mutex) : std::unique_lock<std::recursive_mutex>();
}

uint64_t rpc_buffers_freed() { return n_freed.load(); }
void note_rpc_buffer_freed() { ++n_freed; }

} // namespace lazygguf
