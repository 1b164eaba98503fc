"""Compiles every *.cu of a folder with NVRTC, without a GPU.

    python3 -m venv VENV && VENV/bin/pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12
    VENV/bin/python tests/cuda/nvrtc.py FOLDER [--arch sm_90a] [--ptx FOLDER]

Prints a line per failure and a count. Exit status: 0 if all compile, 1 if not, 77 without NVRTC or CUDA's headers in
the Python path. The options are those of CubeCL. --arch may be repeated; --ptx writes the PTX, by architecture.
"""

import argparse
import ctypes
import glob
import importlib.util
import os
import sys

ARCHITECTURES = ["sm_75", "sm_80", "sm_90a"]


def package(name):
    """The folder of a package of NVIDIA; skips the check without it."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        print(f"SKIP no {name}: pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12")
        sys.exit(77)
    return list(spec.submodule_search_locations)[0]


def load():
    libraries = sorted(glob.glob(os.path.join(package("nvidia.cuda_nvrtc"), "lib", "libnvrtc.so.*")))
    if not libraries:
        print("SKIP no libnvrtc in the package nvidia-cuda-nvrtc-cu12")
        sys.exit(77)
    return ctypes.CDLL(libraries[0])


def text_of(nvrtc, program, size_of, get):
    """The log or the PTX of a program: NVRTC has a call for the size and one for the bytes."""
    size = ctypes.c_size_t()
    getattr(nvrtc, size_of)(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(max(size.value, 1))
    getattr(nvrtc, get)(program, text)
    return text.value.decode(errors="replace")


def compile_text(nvrtc, source, arch, include):
    """The PTX and None, or None and the log."""
    program = ctypes.c_void_p()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, None, 0, None, None) != 0:
        return None, "nvrtcCreateProgram failed"
    options = [f"--gpu-architecture={arch}", f"--include-path={include}", "-lineinfo"]
    array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    try:
        if nvrtc.nvrtcCompileProgram(program, len(options), array) != 0:
            return None, text_of(nvrtc, program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog")
        return text_of(nvrtc, program, "nvrtcGetPTXSize", "nvrtcGetPTX"), None
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def main():
    parser = argparse.ArgumentParser(description="Compiles every *.cu of a folder with NVRTC.")
    parser.add_argument("folder")
    parser.add_argument("--arch", action="append")
    parser.add_argument("--ptx")
    arguments = parser.parse_args()
    nvrtc, include = load(), os.path.join(package("nvidia.cuda_runtime"), "include")
    files = sorted(glob.glob(os.path.join(arguments.folder, "*.cu")))
    failed = 0
    for arch in arguments.arch or ARCHITECTURES:
        for file in files:
            with open(file, "rb") as opened:
                ptx, log = compile_text(nvrtc, opened.read(), arch, include)
            if ptx is None:
                failed += 1
                first = next((line for line in log.splitlines() if "error" in line), log.strip())
                print(f"{arch} {os.path.basename(file)}: {first}", flush=True)
            elif arguments.ptx:
                os.makedirs(os.path.join(arguments.ptx, arch), exist_ok=True)
                name = os.path.basename(file).removesuffix(".cu") + ".ptx"
                with open(os.path.join(arguments.ptx, arch, name), "w", encoding="utf-8") as opened:
                    opened.write(ptx)
        print(f"{arch}: {len(files)} texts", flush=True)
    print(f"{failed} failed")
    sys.exit(1 if failed or not files else 0)


if __name__ == "__main__":
    main()
