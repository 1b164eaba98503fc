// Runs launches of kernels on the CPU: `pool` has the buffers before, `after` gets them after all launches. cuda.rs fills
// in the kernels and the launches.

#include "host.hpp"

// KERNELS

int main() {
    std::vector<void*> pool;
    std::vector<std::size_t> sizes;
    std::FILE* file = std::fopen("pool", "rb");
    std::uint64_t size;
    while (file && std::fread(&size, sizeof size, 1, file) == 1) {
        void* buffer = std::aligned_alloc(64, (size / 64 + 1) * 64);
        if (std::fread(buffer, 1, size, file) != size) {
            return 1;
        }
        pool.push_back(buffer);
        sizes.push_back(size);
    }
    // LAUNCHES
    file = std::fopen("after", "wb");
    for (std::size_t i = 0; file && i < pool.size(); i++) {
        std::fwrite(pool[i], 1, sizes[i], file);
    }
    return file && std::fclose(file) == 0 ? 0 : 1;
}
