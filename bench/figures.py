#!/usr/bin/env python3
"""Writes the figures of README.md and bench/README.md from bench/results, a folder for each machine: no number there is
typed by hand."""
import json
import re
from pathlib import Path

BENCH = Path(__file__).resolve().parent
RESULTS = BENCH / "results"
MODELS = ["model_p4", "model_p8", "model_bf16", "model_bf16_rounded", "model_p4_avx2", "model_p8_avx2", "model_p4_128",
          "model_p4_2048", "model_p4_long", "model_p4_deep", "model_p4_deep_i8"]
# The machine of the root README's one figure.
HEADLINE = "xeon"
# One shape of the products; bench/results/kernels.json has all.
KERNEL_SHAPE = "rows:28672/cols:4096"


def load(folder, name):
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def replace(path, name, text):
    """Puts `text` between the markers <!-- figure:name --> and <!-- /figure -->."""
    old = path.read_text()
    pattern = re.compile(rf"(<!-- figure:{name} -->\n).*?(<!-- /figure -->)", re.S)
    new, count = pattern.subn(lambda m: m.group(1) + text + m.group(2), old)
    if count != 1:
        raise SystemExit(f"{path}: {count} places for figure {name}")
    path.write_text(new)


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def spread(values, digits, unit=""):
    """The median, and the range behind it."""
    if values is None:
        return "no steady run"
    low, high = f"{values['min']:.{digits}f}", f"{values['max']:.{digits}f}"
    return f"{values['median']:.{digits}f}{unit} ({low} to {high})"


def weights(result):
    experts = result["weights"]["experts"]
    rounded = ", bf16 products" if result["options"].get("bf16_products") else ""
    return f"{experts['format']}, {8 * experts['bytes'] / experts['parameters']:.2f} bits{rounded}"


def runs(phase):
    return f"{phase['runs']} run{'' if phase['runs'] == 1 else 's'}, {phase['dropped']} dropped"


def phase_text(phase):
    if phase is None or phase["runs"] == 0:
        return "not measured" if phase is None else "no steady run"
    unit = phase["ceiling_unit"]
    digits = 3 if unit == "TOPS" else 1
    return (f"{phase['tokens_per_second']['median']:.1f} tok/s, {phase[unit]['median']:.{digits}f} of "
            f"{phase['ceiling']['median']:.{digits}f} {unit}, {spread(phase['percent_of_ceiling'], 0, ' %')}; {runs(phase)}")


def decode(result, batch):
    return next((p for p in result["decode"] if p["batch"] == batch), None)


def headline(result):
    one, eight, prompt = decode(result, 1), decode(result, 8), result["prefill"]
    layers = {2: "Two"}.get(result["layers"], result["layers"])
    form, bits = weights(result).split(", ")
    return (f"{layers} layers of Mixtral 8x7B's shape in {form} ({bits} a weight) decode at "
            f"{one['tokens_per_second']['median']:.0f} tokens/s, {one['percent_of_ceiling']['median']:.0f} % of what this "
            f"machine's memory delivers, eight sequences together at {eight['times_first']['median']:.1f} times that, and "
            f"read a prompt of {result['options']['prompt']} tokens at {prompt['tokens_per_second']['median']:.0f} "
            f"tokens/s, {prompt['percent_of_ceiling']['median']:.0f} % of its rate of {prompt['ceiling_of']} "
            f"({result['machine']}, {result['isa']}, {result['threads']} threads; measured as `bench/README.md` says).\n")


def model_table(results):
    rows = []
    for r in results:
        one = decode(r, 1)
        depth = ""
        if one and one["depth"]:
            depth = (f"behind {one['depth']} tokens ({r['options']['kv']}, {one['kv_bytes_per_step'] / 1e6:.0f} MB a "
                     f"step): ")
        length = f"{r['options']['prompt']} tokens: " if r["prefill"] else ""
        rows.append([weights(r), r["isa"], depth + phase_text(one), length + phase_text(r["prefill"])])
    text = table(["weights", "instruction set", "decode, share of DRAM", "prompt, share of multiply-add"], rows)
    r = results[0]
    return (text + f"\n{r['layers']} layers of Mixtral 8x7B's shape, random weights in {r['weights_in']}, {r['threads']} "
            f"threads, {r['machine']}. Medians, in brackets the range.\n")


def batch_table(results):
    rows = []
    for r in results:
        for p in r["decode"]:
            if "times_first" not in p or p["runs"] == 0:
                continue
            per_layer = ", ".join(f"{e:.2f}" for e in p["distinct_experts"]["of_layer"])
            rows.append([weights(r), r["isa"], str(p["batch"]), f"{p['tokens_per_second']['median']:.1f}",
                         spread(p["times_first"], 2), per_layer, spread(p["percent_of_ceiling"], 0, " %"), runs(p)])
    return table(["weights", "instruction set", "sequences", "tok/s", "times one", "distinct experts, each layer",
                  "share of DRAM", "repetitions"], rows)


def ragged_table(results):
    rows = [[weights(r), r["isa"], f"{r['options']['prompt']} tokens", str(r["ragged"]["batch"]),
             spread(r["ragged"]["times_prompt"], 2), runs(r["ragged"])] for r in results if r.get("ragged")]
    return table(["weights", "instruction set", "prompt", "sequences that decode in its steps", "time, in times of the "
                  "prompt alone", "repetitions"], rows) if rows else ""


def memory_table(results):
    mib = lambda n: f"{n / 2**20:.0f} MiB"
    rows = [[weights(r), str(r["options"]["prompt"]), str(r["options"]["depth"]), mib(r["memory"]["weights_bytes"]),
             mib(r["memory"]["kv_bytes"]), mib(r["memory"]["scratch_bytes"]), mib(r["memory"]["beside_weights_bytes"])]
            for r in results if r["isa"] == results[0]["isa"] or "BF16" in weights(r)]
    return table(["weights", "prompt", "depth", "weights", "KV cache", "scratch", "anonymous memory beside the weights"],
                 rows)


def gemv_table(report):
    rows = []
    for product in report["products"]:
        by_tokens = product["by_tokens"]
        times = [spread(p["times_one_token"], 2) for p in by_tokens[1:]]
        one = by_tokens[0]
        rows.append([product["weights"], f"{product['shape']} {product['rows']} x {product['cols']}",
                     f"{spread(one['percent_of_ceiling'], 0, ' %')}; {runs(one)}", *times])
    counts = [f"{p['tokens']} tokens" for p in report["products"][0]["by_tokens"][1:]]
    return (table(["weights", "matrix", "1 token, share of DRAM", *counts], rows) +
            f"\nThe time for more tokens in times of that for one, in the same round; {report['isa']}, "
            f"{report['threads']} threads.\n")


def quality_table(report):
    percent = lambda x: f"{100 * x:.2f} %"
    beside = lambda d: f"{1e3 * d['mean']:+.2f} ({1e3 * d['standard_error']:.2f})" if d["standard_error"] else "0"
    texts = [("not trained on", report["variants"]), ("written by the model", report.get("own_text", []))]
    rows = [[f"{v['targets']} {text}", v["weights"], f"{v['bits_per_weight']:.2f}", f"{v['perplexity']:.3f}",
             beside(v["cross_entropy_over_last"]), f"{v['kl_mean']:.5f}", beside(v["kl_over_last"]),
             f"{v['kl_p99']:.4f} ({v['kl_p99_low']:.4f} to {v['kl_p99_high']:.4f})", percent(v["same_top1"]), percent(v["same_experts"]),
             percent(v["same_first_expert"])] for text, variants in texts for v in variants]
    return (table(["tokens", "weights", "bits", "perplexity", "cross-entropy over Q4_0", "KL, mean", "KL over Q4_0",
                   "KL, 99th percentile", "same likeliest token", "same experts", "same first expert"], rows) +
            "\nThe embedded model against its bf16 weights (`quality_bench`); calibrated: on 8192 other tokens that "
            "the model wrote. Over Q4_0: thousandths of a nat at the same positions, in brackets the standard error; "
            "beside the percentile its 95 % interval.\n")


def kernel_text(b):
    rate = next((f"{b[u]:.3f} {u}" for u in ("TOPS",) if u in b and "tokens:128" in b["name"]), "")
    if not rate and "bytes_per_second" in b:
        rate = f"{b['bytes_per_second'] / 1e9:.1f} GB/s"
    if not rate and "items_per_second" in b:
        rate = f"{b['items_per_second'] / 1e6:.0f} M/s"
    share = f", {b['%ceiling']:.0f} %" + ("" if b["steady"] else " (probes drifted)") if "%ceiling" in b else ""
    return f"{b['real_time'] / 1e3:.1f} us, {rate}{share}"


def kernel_table(report):
    rows, isas = {}, []
    for b in report["benchmarks"]:
        op, isa, *shape = b["name"].removeprefix("BM_").removesuffix("/real_time").split("/")
        shape = "/".join(shape)
        if "rows:" in shape and not shape.startswith(KERNEL_SHAPE):
            continue
        if ":" in isa:  # the same for every instruction set
            continue
        if isa not in isas:
            isas.append(isa)
        rows.setdefault(f"{op} {shape}".strip(), {})[isa] = kernel_text(b)
    return table(["kernel", *isas], [[f"`{name}`", *[row.get(isa, "") for isa in isas]] for name, row in rows.items()])


def machine_parts(folder):
    """All tables of one machine."""
    models = [r for r in (load(folder, name) for name in MODELS) if r]
    for r in models:
        r["machine"] += f" ({folder.name})"  # CPUs of one maker may all have the same name
    batches = [r for r in models if len(r["decode"]) > 1]
    gemv, kernels = load(folder, "gemv"), load(folder, "kernels")
    parts = [f"### {models[0]['machine']}\n", model_table(models), batch_table(batches)]
    parts += [part for part in (ragged_table(models), memory_table(models)) if part]
    parts += [gemv_table(gemv)] if gemv else []
    parts += [kernel_table(kernels)] if kernels else []
    return models, parts


def main():
    machines = [machine_parts(folder) for folder in sorted(RESULTS.iterdir()) if (folder / "model_p4.json").exists()]
    if not machines:
        raise SystemExit(f"no results in {RESULTS}: run bench/run.sh")
    parts = [part for _, of_machine in machines for part in of_machine]
    quality = next((q for q in (load(folder, "quality") for folder in sorted(RESULTS.iterdir())) if q), None)
    parts += ["### Quality\n", quality_table(quality)] if quality else []
    replace(BENCH.parent / "README.md", "headline", headline(load(RESULTS / HEADLINE, "model_p4")))
    replace(BENCH / "README.md", "results", "\n".join(parts))


if __name__ == "__main__":
    main()
