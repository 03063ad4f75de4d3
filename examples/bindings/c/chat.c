// C: a conversation. Each line of the input is a message, the answers are streamed. C99, mixtral.h, nothing else.
#include <stdio.h>
#include <string.h>

#include "mixtral.h"

static int32_t print_text(void* user, int32_t token, const char* text, size_t text_size) {
  FILE* out = user;
  (void)token;
  return fwrite(text, 1, text_size, out) == text_size && fflush(out) == 0 ? 0 : 1;  // not 0: stop
}

static mixtral_status begin(mixtral_session* session) {
  mixtral_sampler_params sampler;
  mixtral_sampler_params_init(&sampler, sizeof sampler);
  sampler.temperature = 0;  // greedy
  mixtral_status status = mixtral_session_set_sampler(session, &sampler);
  if (status == MIXTRAL_OK) status = mixtral_chat_begin(session, MIXTRAL_CHAT_AUTO, 0);
  const char* text = "You write manual pages.";
  const mixtral_chat_message system = {sizeof system, MIXTRAL_ROLE_SYSTEM, text, strlen(text), NULL, 0};
  return status == MIXTRAL_OK ? mixtral_chat_add(session, &system, 1) : status;
}

// The session holds the conversation and what is computed of it: each message costs what is new.
static mixtral_status say(mixtral_session* session, const char* text) {
  mixtral_generate_params params;
  mixtral_generate_params_init(&params, sizeof params);
  params.max_tokens = 24;
  params.on_token = print_text;
  params.user = stdout;
  mixtral_generate_result result = {.struct_size = sizeof result};
  mixtral_status status = mixtral_chat_say(session, text, strlen(text), &params, &result);
  if (status == MIXTRAL_OK) {
    printf("\n[%d tokens, %d of the %d before them kept]\n", (int)result.n_tokens, (int)result.n_kept,
           (int)result.n_prompt);
  }
  return status;
}

int main(int argc, char** argv) {
  const char* path = argc > 1 ? argv[1] : "examples/models/tiny";
  mixtral_ctx* ctx = NULL;
  mixtral_session* session = NULL;
  mixtral_status status = mixtral_ctx_create(path, strlen(path), NULL, &ctx);
  if (status == MIXTRAL_OK) status = mixtral_session_create(ctx, NULL, &session);
  if (status == MIXTRAL_OK) status = begin(session);
  char line[4096];
  while (status == MIXTRAL_OK && !ferror(stdout) && fgets(line, sizeof line, stdin) != NULL) {
    line[strcspn(line, "\n")] = 0;
    status = say(session, line);
    // A message that is refused is forgotten, and the conversation goes on; one that does not fit needs a new one.
    if (status == MIXTRAL_INVALID_ARGUMENT || status == MIXTRAL_CONTEXT_FULL) {
      printf("(%s)\n", mixtral_last_error());
      status = status == MIXTRAL_CONTEXT_FULL ? mixtral_chat_keep(session, 1) : MIXTRAL_OK;  // the system's text
    }
  }
  const int lost = ferror(stdout);
  if (status != MIXTRAL_OK) fprintf(stderr, "%s: %s\n", mixtral_status_text(status), mixtral_last_error());
  mixtral_session_destroy(session);
  mixtral_ctx_destroy(ctx);
  return status == MIXTRAL_OK && !lost ? 0 : 1;
}
