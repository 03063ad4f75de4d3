"""Python: opens a model, streams a greedy completion, prints which experts worked."""

import sys

from mixtral import Context, MixtralError, Session


def print_text(_token, text):
    sys.stdout.write(text)
    sys.stdout.flush()


def print_experts(counts):
    """A line for each layer: which percentage of its tokens' choices fell on each expert."""
    print("\n\nshare of each expert (%)")
    for layer, row in enumerate(counts):
        total = sum(row)
        print(f"layer {layer}:" + "".join(f"{(100 * count + total // 2) // total:4}" for count in row))


def main(path="examples/models/tiny"):
    try:
        with Context(path) as context, Session(context, temperature=0) as session:  # greedy
            session.feed(context.tokenize("RETURN VALUE\n       On success,"))
            session.generate(48, print_text)
            print_experts(context.routing_counts())
    except MixtralError as error:
        sys.exit(str(error))  # to stderr, exit code 1


if __name__ == "__main__":
    main(*sys.argv[1:])
