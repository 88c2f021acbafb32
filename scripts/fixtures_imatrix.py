"""Makes tests/fixtures/imatrix: a small importance matrix in both of llama.cpp's forms.

The GGUF form is written by the gguf package, the older form as llama-imatrix writes it
(`--output-format dat`); see scripts/README.md for how the two were compared with that program.

    python fixtures_imatrix.py [FOLDER]
"""

import struct
import sys
from pathlib import Path

import gguf
import numpy as np

CHUNK_SIZE = 16
CHUNKS = 3
DATASETS = ["first.txt", "second.txt"]
# name -> (sums of squares, one list a matrix; rows, one number a matrix)
ENTRIES = {
    "blk.0.attn_q.weight": ([[48.0, 12.0, 0.0, 3.0]], [48]),
    "blk.0.ffn_down.weight": ([[96.0, 0.75]], [96]),
    "blk.1.ffn_down_exps.weight": ([[8.0, 16.0], [0.0, 0.0], [5.0, 10.0]], [32, 0, 40]),
}


def write_gguf(path):
    writer = gguf.GGUFWriter(path, arch="")
    # The package writes an architecture, which these files do not have.
    writer.kv_data = [{}]
    writer.add_string("general.type", "imatrix")
    writer.add_array("imatrix.datasets", DATASETS)
    writer.add_uint32("imatrix.chunk_count", CHUNKS)
    writer.add_uint32("imatrix.chunk_size", CHUNK_SIZE)
    for name, (sums, counts) in ENTRIES.items():
        flat = len(counts) == 1
        sums = np.array(sums[0] if flat else sums, np.float32)
        counts = np.array(counts if flat else [[count] for count in counts], np.float32)
        writer.add_tensor(f"{name}.in_sum2", sums)
        writer.add_tensor(f"{name}.counts", counts)
        # Newer programs add the plain sums; who does not know them passes over them.
        if name == "blk.0.ffn_down.weight":
            writer.add_tensor(f"{name}.in_sum", np.array([-4.0, 0.5], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_dat(path):
    data = struct.pack("<i", len(ENTRIES))
    for name, (sums, counts) in ENTRIES.items():
        calls = -(-max(counts) // CHUNK_SIZE)
        values = []
        for row, count in zip(sums, counts):
            means = [value / count if count else 1.0 for value in row]
            values += [mean * calls for mean in means]
        encoded = name.encode()
        data += struct.pack("<i", len(encoded)) + encoded
        data += struct.pack("<ii", calls, len(values)) + struct.pack(f"<{len(values)}f", *values)
    # llama-imatrix counts the chunks of the weight with most rows, and names the last text.
    chunks = max(max(counts) for _, counts in ENTRIES.values()) // CHUNK_SIZE
    last = DATASETS[-1].encode()
    path.write_bytes(data + struct.pack("<ii", chunks, len(last)) + last)


def main():
    fixtures = Path(__file__).parent.parent / "tests/fixtures/imatrix"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else fixtures
    folder.mkdir(parents=True, exist_ok=True)
    write_gguf(folder / "small.imatrix.gguf")
    write_dat(folder / "small.imatrix.dat")


if __name__ == "__main__":
    main()
