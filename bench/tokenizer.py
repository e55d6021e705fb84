#!/usr/bin/env python3
"""imp's tokenizer against the package `tokenizers`: one thread, the same text, in turns.

    build/venv/bin/python bench/tokenizer.py [MODEL ...] [--text FILE] [-r N] [--imp BIN]

MODEL: folders with a tokenizer.json (default: models/smollm2-nvfp4). Each round times imp, then the
package, then imp again; the medians and their ratio are printed. The package is timed without
offsets (encode_batch_fast), which is its quicker way.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Tokenizer  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEAST_S = 0.2


def package_speed(tokenizer, text):
    begin, bytes_done = time.perf_counter(), 0
    while True:
        tokenizer.encode_batch_fast([text], add_special_tokens=False)
        bytes_done += len(text.encode("utf-8"))
        spent = time.perf_counter() - begin
        if spent >= LEAST_S:
            return bytes_done / spent


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=[ROOT / "models" / "smollm2-nvfp4"])
    parser.add_argument("--text", default=ROOT / "tests/data/prose/news-from-nowhere.txt")
    parser.add_argument("--imp", default=ROOT / "build" / "imp")
    parser.add_argument("-r", type=int, default=5)
    options = parser.parse_args()
    text = pathlib.Path(options.text).read_text(encoding="utf-8")
    print("   imp MB/s  package MB/s  ratio   load ms  package ms  model")
    for model in options.models:
        command = [options.imp, "bench", model, "--tokenizer", "--text", options.text, "--json"]
        ours, theirs, load, their_load = [], [], [], []
        for _ in range(options.r):
            for late in False, True:
                row = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                ours.append(row["encode_bytes_per_s"])
                load.append(row["load_ms"])
                if late:
                    continue
                begin = time.perf_counter()
                tokenizer = Tokenizer.from_file(str(pathlib.Path(model) / "tokenizer.json"))
                their_load.append((time.perf_counter() - begin) * 1e3)
                tokenizer.no_truncation()
                theirs.append(package_speed(tokenizer, text))
        a, b = statistics.median(ours) / 1e6, statistics.median(theirs) / 1e6
        print(f"{a:11.2f} {b:13.2f} {a / b:6.2f} {statistics.median(load):9.0f} "
              f"{statistics.median(their_load):11.0f}  {model}")


if __name__ == "__main__":
    main()
