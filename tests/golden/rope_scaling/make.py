"""Writes rope_scaling.safetensors and cases.json: cosines and sines of scaled rotary embeddings in float64, from the
definitions alone, with nothing but Python 3's standard library.

    python3 make.py

theta_i = theta^(-2i/d) is what pair i turns in one position (Su et al. 2021). "linear" divides all of them by the
factor. "yarn" (Peng et al. 2023, arXiv 2309.00071) divides those that turn less than beta_slow times in the original
context, keeps those that turn more than beta_fast times, blends in between, and multiplies cos and sin by
0.1 ln(factor) + 1. The ramp between is the one that checkpoints are trained with, linear in i: from the last pair with
at least beta_fast turns to the first one with at most beta_slow, found here by counting; without "truncate" from where
i, taken as a real number, has exactly so many turns.
"""
import json
import math
import pathlib
import struct

POSITIONS = [0, 1, 4095, 32767, 65535, 65536]


def yarn(head_dim, theta, factor, original, beta_fast=32.0, beta_slow=1.0, truncate=True, attention_factor=None):
    return dict(kind="yarn", head_dim=head_dim, theta=theta, factor=factor, original_max_positions=original,
                beta_fast=beta_fast, beta_slow=beta_slow, truncate=truncate,
                attention_factor=0.1 * math.log(factor) + 1 if attention_factor is None else attention_factor)


def linear(head_dim, theta, factor):
    return dict(kind="linear", head_dim=head_dim, theta=theta, factor=factor, attention_factor=1.0)


# Factors and betas are float32 numbers exactly, as a configuration holds them.
CASES = {
    "linear_128_1": linear(128, 1e6, 1.0),
    "linear_128_4": linear(128, 1e6, 4.0),
    "linear_64_2.5": linear(64, 1e4, 2.5),
    "linear_64_32": linear(64, 1e6, 32.0),
    "yarn_128_1": yarn(128, 1e6, 1.0, 32768),
    "yarn_128_2": yarn(128, 1e6, 2.0, 32768),
    "yarn_128_4": yarn(128, 1e4, 4.0, 4096),
    "yarn_64_16": yarn(64, 1e4, 16.0, 4096),
    "yarn_64_2.5": yarn(64, 1e6, 2.5, 8192),
    "yarn_128_32_betas": yarn(128, 1e6, 32.0, 2048, beta_fast=4.0, beta_slow=0.5),
    "yarn_64_4_short": yarn(64, 1e4, 4.0, 128),  # no pair turns 32 times
    "yarn_64_4_not_truncated": yarn(64, 1e6, 4.0, 32768, truncate=False),
    "yarn_128_8_magnitude_1": yarn(128, 1e6, 8.0, 16384, attention_factor=1.0),
}


def frequencies(c):
    def frequency(i):
        return math.exp(-2 * i / c["head_dim"] * math.log(c["theta"]))

    pairs = range(c["head_dim"] // 2)
    if c["kind"] == "linear":
        return [frequency(i) / c["factor"] for i in pairs]

    def turns(i):
        return c["original_max_positions"] * frequency(i) / (2 * math.pi)

    if c["truncate"]:
        begin = end = 0
        while turns(begin + 1) >= c["beta_fast"]:
            begin += 1
        while turns(end) > c["beta_slow"]:
            end += 1
    else:  # turns(i) falls by the same factor from pair to pair, so its logarithm is linear in i
        step = math.log(turns(0) / turns(1))
        begin = math.log(turns(0) / c["beta_fast"]) / step
        end = math.log(turns(0) / c["beta_slow"]) / step
    out = []
    for i in pairs:
        kept = 1 - min(max((i - begin) / (end - begin), 0), 1)
        out.append(frequency(i) * kept + frequency(i) / c["factor"] * (1 - kept))
    return out


def main():
    header, data = {}, b""
    for name, case in CASES.items():
        f = frequencies(case)
        for function in ("cos", "sin"):
            numbers = [case["attention_factor"] * getattr(math, function)(p * w) for p in POSITIONS for w in f]
            packed = struct.pack(f"<{len(numbers)}d", *numbers)
            header[f"{name}.{function}"] = dict(dtype="F64", shape=[len(POSITIONS), len(f)],
                                                data_offsets=[len(data), len(data) + len(packed)])
            data += packed
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    here = pathlib.Path(__file__).parent
    (here / "rope_scaling.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (here / "cases.json").write_text(json.dumps({"positions": POSITIONS, "cases": CASES}, indent=1) + "\n")


main()
