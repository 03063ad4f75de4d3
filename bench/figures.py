#!/usr/bin/env python3
"""Writes the figures of README.md and bench/README.md from bench/results: no number there is typed by hand."""
import json
import re
from pathlib import Path

BENCH = Path(__file__).resolve().parent
RESULTS = BENCH / "results"


def load(name):
    path = RESULTS / name
    return json.loads(path.read_text()) if path.exists() else None


def replace(path, name, text):
    """Puts `text` between the markers <!-- figure:name --> and <!-- /figure -->."""
    old = path.read_text()
    pattern = re.compile(rf"(<!-- figure:{name} -->\n).*?(<!-- /figure -->)", re.S)
    new, count = pattern.subn(lambda m: m.group(1) + text + m.group(2), old)
    if count != 1:
        raise SystemExit(f"{path}: {count} places for figure {name}")
    path.write_text(new)


def phase(result, name):
    p = result[name]
    if p["runs"] == 0:
        return "no steady run"
    unit = "GB/s" if name == "decode" else "GFLOP/s"
    return (f"{p['tokens_per_second']:.1f} tok/s, {p['rate']:.1f} of {p['ceiling']:.1f} {unit}, "
            f"{p['percent_of_ceiling']:.0f} % ({p['runs']} runs, {p['dropped']} dropped)")


def headline(result):
    d, p = result["decode"], result["prefill"]
    return (f"Two layers of Mixtral 8x7B's shape in bf16 decode at {d['tokens_per_second']:.1f} tokens/s, "
            f"{d['percent_of_ceiling']:.0f} % of what this machine's memory delivers, and read a prompt of "
            f"{result['prompt_tokens']} tokens at {p['percent_of_ceiling']:.0f} % of its float32 multiply-add rate "
            f"({result['machine']}, {result['isa']}, {result['threads']} threads; measured as `bench/README.md` says).\n")


def model_table(results):
    lines = ["| instruction set | weights in | decode, share of DRAM | prefill, share of multiply-add |", "|---|---|---|---|"]
    for r in results:
        lines.append(f"| {r['isa']} | {r['memory']} | {phase(r, 'decode')} | {phase(r, 'prefill')} |")
    r = results[0]
    lines.append("")
    lines.append(f"{r['layers']} layers of Mixtral 8x7B's shape, vocabulary 32000, bf16, prompt of {r['prompt_tokens']} "
                 f"tokens, {r['threads']} threads, {r['machine']}.")
    return "\n".join(lines) + "\n"


def kernel_table(report):
    lines = ["| kernel, one thread | time | rate | share of the ceiling |", "|---|---|---|---|"]
    for b in report["benchmarks"]:
        rate = next((f"{b[u]:.1f} {u}" for u in ("GB/s", "GFLOP/s") if u in b), "")
        if not rate and "items_per_second" in b:
            rate = f"{b['items_per_second'] / 1e6:.0f} M items/s"
        if not rate and "bytes_per_second" in b:
            rate = f"{b['bytes_per_second'] / 1e9:.1f} GB/s"
        share = f"{b['ceiling%']:.0f} %" + ("" if b["steady"] else " (probes drifted)") if "ceiling%" in b else ""
        name = b["name"].removeprefix("BM_").removesuffix("/real_time")
        lines.append(f"| `{name}` | {b['real_time'] / 1e3:.1f} us | {rate} | {share} |")
    return "\n".join(lines) + "\n"


def main():
    names = ["model_bf16.json", "model_bf16_avx2.json", "model_bf16_mapped.json"]
    models = [r for r in map(load, names) if r]
    kernels = load("kernels.json")
    replace(BENCH.parent / "README.md", "headline", headline(models[0]))
    replace(BENCH.parent / "README.md", "table", model_table(models))
    replace(BENCH / "README.md", "results", model_table(models) + ("\n" + kernel_table(kernels) if kernels else ""))


if __name__ == "__main__":
    main()
