"""Python: a conversation. Each line of the input is a message, the answers are streamed."""

import sys

from mixtral import CONTEXT_FULL, INVALID_ARGUMENT, Context, MixtralError, Session
from complete import print_text


def main(path="examples/models/tiny"):
    try:
        with Context(path) as context, Session(context, temperature=0) as session:  # greedy
            session.begin_chat(system="You write manual pages.")
            sys.stdin.reconfigure(errors="replace")
            for line in sys.stdin:
                try:
                    result = session.say(line.rstrip("\n"), 24, print_text)
                    print(f"\n[{result.n_tokens} tokens, {result.n_kept} of the {result.n_prompt} before them kept]")
                except MixtralError as error:
                    # A message that is refused is forgotten, and the conversation goes on; one that does not fit
                    # needs a new one.
                    if error.status not in (INVALID_ARGUMENT, CONTEXT_FULL):
                        raise
                    print(f"({error})")
                    if error.status == CONTEXT_FULL:
                        session.keep_messages(1)  # the system's text
    except MixtralError as error:
        sys.exit(str(error))  # to stderr, exit code 1


if __name__ == "__main__":
    main(*sys.argv[1:])
