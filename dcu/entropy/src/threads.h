// Work on several threads.

#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace dcu {

// Call work(i) for i < count on so many threads; rethrows what one of them throws.
template <typename Work>
void share(int64_t count, int64_t threads, const Work &work) {
    threads = std::max<int64_t>(1, std::min(count, threads));
    std::vector<std::exception_ptr> failures(threads);
    const auto part = [&](int64_t thread) {
        try {
            for (int64_t i = thread; i < count; i += threads) work(i);
        } catch (...) {
            failures[thread] = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    for (int64_t thread = 1; thread < threads; ++thread) {
        try {
            others.emplace_back(part, thread);
        } catch (const std::system_error &) {  // no thread can be had: its part is done here
            part(thread);
        }
    }
    part(0);
    for (std::thread &other : others) other.join();
    for (const std::exception_ptr &failure : failures)
        if (failure) std::rethrow_exception(failure);
}

}  // namespace dcu
