// C: opens a model, streams a greedy completion, prints which experts worked. C99, mixtral.h, nothing else.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mixtral.h"

// Runs on the thread that called mixtral_session_generate(). `user` is ours: here the file to write to.
static int32_t print_text(void* user, int32_t token, const char* text, size_t text_size) {
  FILE* out = user;
  (void)token;
  return fwrite(text, 1, text_size, out) == text_size && fflush(out) == 0 ? 0 : 1;  // not 0: stop
}

// Queues the prompt: text to ids, ids to the session.
static mixtral_status feed_text(const mixtral_ctx* ctx, mixtral_session* session, const char* text) {
  const size_t size = strlen(text);
  size_t n = 0;
  mixtral_status status = mixtral_tokenize(ctx, text, size, MIXTRAL_TOKENIZE_BOS, NULL, 0, &n);  // how many?
  if (status != MIXTRAL_BUFFER_TOO_SMALL) return status;  // an error; or no tokens at all, which is no error
  int32_t* tokens = malloc(n * sizeof *tokens);
  if (tokens == NULL) return MIXTRAL_OUT_OF_MEMORY;
  status = mixtral_tokenize(ctx, text, size, MIXTRAL_TOKENIZE_BOS, tokens, n, &n);
  if (status == MIXTRAL_OK) status = mixtral_session_feed(session, tokens, n, 0);
  free(tokens);
  return status;
}

static mixtral_status complete(const mixtral_ctx* ctx, mixtral_session* session, const char* prompt) {
  mixtral_sampler_params sampler;
  mixtral_sampler_params_init(&sampler, sizeof sampler);
  sampler.temperature = 0;  // greedy
  mixtral_status status = mixtral_session_set_sampler(session, &sampler);
  if (status == MIXTRAL_OK) status = feed_text(ctx, session, prompt);
  if (status != MIXTRAL_OK) return status;

  mixtral_generate_params params;
  mixtral_generate_params_init(&params, sizeof params);
  params.max_tokens = 48;
  params.on_token = print_text;
  params.user = stdout;
  return mixtral_session_generate(session, &params, NULL);
}

// A line for each layer: which percentage of its tokens' choices fell on each expert.
static mixtral_status print_experts(mixtral_ctx* ctx) {
  mixtral_info info = {.struct_size = sizeof info};
  mixtral_status status = mixtral_ctx_info(ctx, &info);
  if (status != MIXTRAL_OK) return status;
  size_t n = (size_t)(info.n_layers * info.n_experts);
  uint64_t* counts = malloc(n * sizeof *counts);
  if (counts == NULL) return MIXTRAL_OUT_OF_MEMORY;
  status = mixtral_ctx_routing_counts(ctx, counts, n, &n);
  if (status == MIXTRAL_OK) printf("\n\nshare of each expert (%%)\n");
  for (int64_t layer = 0; status == MIXTRAL_OK && layer < info.n_layers; ++layer) {
    const uint64_t* row = counts + layer * info.n_experts;
    uint64_t total = 0;
    for (int64_t e = 0; e < info.n_experts; ++e) total += row[e];
    printf("layer %" PRId64 ":", layer);
    for (int64_t e = 0; e < info.n_experts; ++e) printf("%4" PRIu64, (100 * row[e] + total / 2) / total);
    printf("\n");
  }
  free(counts);
  return status;
}

int main(int argc, char** argv) {
  const char* path = argc > 1 ? argv[1] : "examples/models/tiny";
  mixtral_ctx* ctx = NULL;
  mixtral_session* session = NULL;
  mixtral_status status = mixtral_ctx_create(path, strlen(path), NULL, &ctx);
  if (status == MIXTRAL_OK) status = mixtral_session_create(ctx, NULL, &session);
  if (status == MIXTRAL_OK) status = complete(ctx, session, "RETURN VALUE\n       On success,");
  if (status == MIXTRAL_OK) status = print_experts(ctx);
  // The text belongs to this thread and stays until its next call that fails.
  if (status != MIXTRAL_OK) fprintf(stderr, "%s: %s\n", mixtral_status_text(status), mixtral_last_error());
  mixtral_session_destroy(session);  // NULL is allowed; any order: the session keeps the model alive
  mixtral_ctx_destroy(ctx);
  return status == MIXTRAL_OK ? 0 : 1;
}
