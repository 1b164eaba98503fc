// Times a matrix product of ggml through Vulkan, for `fovea-benches products`, which runs it beside each of its rows.
//
//     cmake -B build -DGGML_VULKAN=ON -DBUILD_SHARED_LIBS=ON LLAMA.CPP && cmake --build build --target ggml-vulkan ggml
//     g++ -O2 -I LLAMA.CPP/ggml/include ggml_products.cpp -L build/bin -lggml-vulkan -lggml -lggml-base -lggml-cpu -o products
//     GGML_VK_VISIBLE_DEVICES=0 LD_LIBRARY_PATH=build/bin fovea-benches products --device wgpu --ggml ./products
//
// Prints the milliseconds of one product: the smallest of five graphs, each with several products of the same matrix.

#include <ggml-backend.h>
#include <ggml-vulkan.h>
#include <ggml.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string>
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

int main(int count, char** given) {
    const ggml_type types[] = {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0};
    const auto type = std::find_if(std::begin(types), std::end(types), [&](ggml_type type) {
        return count == 5 && std::string(given[4]) == ggml_type_name(type);
    });
    if (type == std::end(types)) {
        std::fprintf(stderr, "expected TOKENS COLUMNS ROWS f32|f16|q8_0|q4_0\n");
        return 2;
    }
    ggml_backend_t backend = ggml_backend_vk_init(0);
    if (!backend) {
        std::fprintf(stderr, "no Vulkan device\n");
        return 1;
    }
    std::printf("%.3f\n", products(backend, *type, std::atoi(given[2]), std::atoi(given[3]), std::atoi(given[1])));
    ggml_backend_free(backend);
}
