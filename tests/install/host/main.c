/* A host in C of the installed library: `main MODEL PROMPT N` prints the N likeliest tokens after a prompt. */
#include <mixtral.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TOKENS = 256, MOST_BYTES = 4096 };

static void check(mixtral_status status) {
  if (status == MIXTRAL_OK) return;
  fprintf(stderr, "%s: %s\n", mixtral_status_text(status), mixtral_last_error());
  exit(1);
}

int main(int argc, char** argv) {
  mixtral_ctx* ctx;
  mixtral_session* session;
  mixtral_params params;
  mixtral_sampler_params greedy;
  int32_t tokens[MOST_TOKENS];
  char text[MOST_BYTES];
  size_t n, size;
  int i, steps;

  if (argc != 4 || (steps = atoi(argv[3])) > MOST_TOKENS) return 2;
  if (mixtral_version() != MIXTRAL_VERSION) {
    fprintf(stderr, "header %d, library %s\n", MIXTRAL_VERSION, mixtral_version_text());
    return 1;
  }
  check(mixtral_params_init(&params, sizeof params));
  params.n_threads = 2;
  check(mixtral_ctx_create(argv[1], strlen(argv[1]), &params, &ctx));
  check(mixtral_session_create(ctx, NULL, &session));
  check(mixtral_sampler_params_init(&greedy, sizeof greedy));
  greedy.temperature = 0;
  check(mixtral_session_set_sampler(session, &greedy));

  check(mixtral_tokenize(ctx, argv[2], strlen(argv[2]), MIXTRAL_TOKENIZE_BOS, tokens, MOST_TOKENS, &n));
  check(mixtral_session_feed(session, tokens, n, 0));
  for (i = 0; i < steps; ++i) {
    int32_t token;
    check(mixtral_session_step(session, &token));
    check(mixtral_token_bytes(ctx, token, text, sizeof text, &size));
    fwrite(text, 1, size, stdout);
  }
  puts("");
  mixtral_session_destroy(session);
  mixtral_ctx_destroy(ctx);
  return 0;
}
