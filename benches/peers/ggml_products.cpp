// Times matrix products of ggml through Vulkan, beside the rows gemv and gemm of `fovea-benches network --device wgpu`.
//
//     cmake -B build -DGGML_VULKAN=ON -DBUILD_SHARED_LIBS=ON LLAMA.CPP && cmake --build build --target ggml-vulkan ggml
//     g++ -O2 -I LLAMA.CPP/ggml/include ggml_products.cpp -L build/bin -lggml-vulkan -lggml -lggml-base -lggml-cpu -o products
//     LD_LIBRARY_PATH=build/bin ./products
//
// Prints milliseconds per product: the smallest of five graphs, each with several products of the same matrix.

#include <ggml-backend.h>
#include <ggml-vulkan.h>
#include <ggml.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

static double products(ggml_backend_t backend, ggml_type type, int width, int rows, int tokens) {
    const int count = tokens == 1 ? 16 : 2, graphs = 5;
    const size_t room = ggml_tensor_overhead() * (3 * count + 8) + ggml_graph_overhead();
    ggml_context* context = ggml_init({room, nullptr, true});
    ggml_tensor* weight = ggml_new_tensor_2d(context, type, width, rows);
    ggml_tensor* x = ggml_new_tensor_2d(context, GGML_TYPE_F32, width, tokens);
    ggml_cgraph* graph = ggml_new_graph(context);
    for (int i = 0; i < count; i++) {
        ggml_build_forward_expand(graph, ggml_mul_mat(context, weight, x));
    }
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    std::vector<float> values(size_t(width) * std::max(rows, tokens));
    for (float& value : values) {
        value = float(std::rand()) / float(RAND_MAX) - 0.5f;
    }
    ggml_backend_tensor_set(x, values.data(), 0, ggml_nbytes(x));
    std::vector<char> bytes(ggml_nbytes(weight));
    ggml_quantize_chunk(type, values.data(), bytes.data(), 0, rows, width, nullptr);
    ggml_backend_tensor_set(weight, bytes.data(), 0, bytes.size());
    double best = 1e300;
    for (int i = 0; i <= graphs; i++) { // the first one also compiles
        const auto start = std::chrono::steady_clock::now();
        ggml_backend_graph_compute(backend, graph);
        ggml_backend_synchronize(backend);
        const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - start;
        best = i > 0 ? std::min(best, taken.count() / count) : best;
    }
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
    return best;
}

int main() {
    ggml_backend_t backend = ggml_backend_vk_init(0);
    if (!backend) {
        std::fprintf(stderr, "no Vulkan device\n");
        return 1;
    }
    char name[256];
    ggml_backend_vk_get_device_description(0, name, sizeof name);
    std::printf("%s\n\n| tokens | width | rows | f32 | f16 | q8_0 | q4_0 |\n|---|---|---|---|---|---|---|\n", name);
    for (int tokens : {1, 256}) {
        for (const auto [width, rows] : {std::pair{896, 896}, {2048, 2048}, {4096, 4096}, {896, 2 * 4864}}) {
            std::printf("| %d | %d | %d |", tokens, width, rows);
            for (ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0}) {
                std::printf(" %.3f |", products(backend, type, width, rows, tokens));
                std::fflush(stdout);
            }
            std::printf("\n");
        }
    }
    ggml_backend_free(backend);
}
